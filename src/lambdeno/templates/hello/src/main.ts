import type { Context, Handler } from "lambdeno";

/** The event: whom to greet. */
export interface Greeting {
  name?: string;
}

export interface Answer {
  message: string;
  requestId: string;
}

/** Greets whoever the event names: `{"name": "Ada"}`. */
export const handler: Handler<Greeting, Answer> = (event: Greeting, context: Context) => {
  const name = event.name ?? "world";
  console.log(`greeting ${name}`);
  return { message: `Hello, ${name}!`, requestId: context.awsRequestId };
};
