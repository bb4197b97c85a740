// What stands behind the design in Go and behind AWS's Lambda Web Adapter: the function as a server.
const { handler } = await import(`file://${Deno.env.get("LAMBDA_TASK_ROOT")}/function.bundle.js`);
Deno.serve({
  port: Number(Deno.env.get("PORT")),
  hostname: "127.0.0.1",
  onListen() {},
}, async (request) => {
  if (request.method === "GET") return new Response("ready");
  const context = { awsRequestId: request.headers.get("lambda-runtime-aws-request-id") };
  const result = await handler(await request.json(), context);
  return Symbol.asyncIterator in Object(result)
    ? new Response(ReadableStream.from(encoded(result)))
    : Response.json(result);
});

/** @param {AsyncIterable<string>} parts */
async function* encoded(parts) {
  const encoder = new TextEncoder();
  for await (const part of parts) yield encoder.encode(part);
}
