/** Says something at once and the rest 20 ms later. */
export async function* handler() {
  yield "first";
  await new Promise((resolve) => setTimeout(resolve, 20));
  yield "last";
}
