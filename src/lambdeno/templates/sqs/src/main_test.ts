import assert from "node:assert/strict";
import type { SQSRecord } from "aws-lambda";
import type { Context } from "lambdeno";
import { handler } from "./main.ts";

function message(messageId: string, body: string): SQSRecord {
  return {
    messageId,
    body,
    receiptHandle: "handle",
    md5OfBody: "",
    attributes: {
      ApproximateReceiveCount: "1",
      SentTimestamp: "0",
      SenderId: "sender",
      ApproximateFirstReceiveTimestamp: "0",
    },
    messageAttributes: {},
    eventSource: "aws:sqs",
    eventSourceARN: "arn:aws:sqs:eu-west-1:123456789012:orders",
    awsRegion: "eu-west-1",
  };
}

async function failures(...Records: SQSRecord[]): Promise<string[]> {
  const { batchItemFailures } = await handler({ Records }, {} as Context);
  return batchItemFailures.map(({ itemIdentifier }) => itemIdentifier);
}

const ORDER = '{"item": "tea", "count": 2}';

Deno.test("messages that were handled do not come back", async () => {
  assert.deepEqual(await failures(message("a", ORDER), message("b", ORDER)), []);
});

Deno.test("a message that failed comes back alone", async () => {
  assert.deepEqual(await failures(message("a", ORDER), message("b", "{}"), message("c", ORDER)), [
    "b",
  ]);
});

Deno.test("a message that is no JSON is a failure like any other", async () => {
  assert.deepEqual(await failures(message("a", "poison"), message("b", ORDER)), ["a"]);
});
