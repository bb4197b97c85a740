import assert from "node:assert/strict";
import type { Context } from "lambdeno";
import { handler } from "./main.ts";

/** An invocation that Lambda knows nothing of. */
const context: Context = {
  functionName: "test",
  functionVersion: "$LATEST",
  memoryLimitInMB: "512",
  logGroupName: "/aws/lambda/test",
  logStreamName: "test",
  awsRequestId: "c6af9ac6-7b61-11e6-9a41-93e8deadbeef",
  invokedFunctionArn: "arn:aws:lambda:eu-west-1:123456789012:function:test",
  signal: new AbortController().signal,
  getRemainingTimeInMillis: () => 10_000,
  callbackWaitsForEmptyEventLoop: true,
  succeed() {},
  fail() {},
  done() {},
};

Deno.test("greets whom the event names", async () => {
  const { message } = await handler({ name: "Ada" }, context);
  assert.equal(message, "Hello, Ada!");
});

Deno.test("greets the world where the event names nobody", async () => {
  const { message } = await handler({}, context);
  assert.equal(message, "Hello, world!");
});

Deno.test("answers with the id of its invocation", async () => {
  const { requestId } = await handler({}, context);
  assert.equal(requestId, context.awsRequestId);
});
