// The dummy function, for debugging the runtime layer by itself: it answers with what it was given.
// The real function's function.bundle.js, in the task root, takes its place.
/** @param {unknown} event @param {object} context */
export const handler = (event, context) => ({
  message: "This is the lambdeno runtime layer's dummy function: add function.bundle.js",
  deno: Deno.version,
  event,
  context,
});
