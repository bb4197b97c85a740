import type { SQSBatchResponse, SQSEvent, SQSRecord } from "aws-lambda";
import type { Handler } from "lambdeno";

export interface Order {
  item: string;
  count: number;
}

/** Handles each message for itself: those that failed come back, the others are done. */
export const handler: Handler<SQSEvent, SQSBatchResponse> = async ({ Records }: SQSEvent) => {
  const outcomes = await Promise.allSettled(Records.map(handle));
  const batchItemFailures = [];
  for (const [index, outcome] of outcomes.entries()) {
    if (outcome.status === "fulfilled") continue;
    const { messageId } = Records[index];
    console.error(`message ${messageId} failed:`, outcome.reason);
    batchItemFailures.push({ itemIdentifier: messageId });
  }
  return { batchItemFailures };
};

/** One message. What it throws puts the message back into the queue. */
async function handle({ body }: SQSRecord): Promise<void> {
  const order: Partial<Order> = JSON.parse(body);
  if (!order.item || !order.count) throw new Error("an order has an item and a count");
  await ship(order as Order);
}

// deno-lint-ignore require-await
async function ship({ item, count }: Order): Promise<void> {
  console.log(`shipping ${count} x ${item}`);
}
