// The peer: Deno polls the Runtime API itself with fetch, as the community layer does.
const api = `http://${Deno.env.get("AWS_LAMBDA_RUNTIME_API")}/2018-06-01/runtime`;
const { handler } = await import(`file://${Deno.env.get("LAMBDA_TASK_ROOT")}/function.bundle.js`);

while (true) {
  const next = await fetch(`${api}/invocation/next`);
  const requestId = next.headers.get("lambda-runtime-aws-request-id");
  Deno.env.set("_X_AMZN_TRACE_ID", next.headers.get("lambda-runtime-trace-id") ?? "");
  const deadline = Number(next.headers.get("lambda-runtime-deadline-ms"));
  const context = {
    awsRequestId: requestId,
    functionName: Deno.env.get("AWS_LAMBDA_FUNCTION_NAME"),
    invokedFunctionArn: next.headers.get("lambda-runtime-invoked-function-arn"),
    getRemainingTimeInMillis: () => deadline - Date.now(),
  };
  const result = await handler(await next.json(), context);
  const posted = await fetch(`${api}/invocation/${requestId}/response`, {
    method: "POST",
    body: JSON.stringify(result),
  });
  await posted.body?.cancel();
}
