import { greet } from "./greeting.ts";
import { parseEvent } from "./event.ts";
import type { Context } from "./lambda.ts";

/** Greets whoever the event names: `{"name": "Ada"}`, or the same in an HTTP body. */
export function handler(event: unknown, context: Context) {
  const { name } = parseEvent(event);
  console.log(`greeting ${name}`);
  return {
    message: greet(name, Deno.env.get("GREETING") ?? "Hello"),
    requestId: context.awsRequestId,
    deno: Deno.version.deno,
  };
}
