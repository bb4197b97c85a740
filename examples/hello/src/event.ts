import { z } from "zod";

const Greeting = z.object({ name: z.string().min(1).max(100).default("world") });

export type Greeting = z.infer<typeof Greeting>;

/** Takes an event as it is, or from the JSON body of an HTTP event. */
export function parseEvent(event: unknown): Greeting {
  const http = event as { body?: unknown } | null;
  const value = typeof http?.body === "string" ? JSON.parse(http.body) : event;
  return Greeting.parse(value ?? {});
}
