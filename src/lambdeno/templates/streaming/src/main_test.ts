import assert from "node:assert/strict";
import type { Context, ServeInfo } from "lambdeno";
import app from "./main.ts";

/** What the runtime would give, with so many ms to go. */
function info(left: number): ServeInfo {
  const lambdaContext = { getRemainingTimeInMillis: () => left } as Context;
  return { lambdaContext } as ServeInfo;
}

async function get(path: string, left = 60_000): Promise<Response> {
  return await app.fetch(new Request(`https://localhost${path}`), info(left));
}

Deno.test("events come one after the other, and say when they end", async () => {
  const answer = await get("/events?count=2");
  assert.equal(answer.headers.get("content-type"), "text/event-stream");
  const began = Date.now();
  const text = await answer.text();
  assert.match(text, /^data: 1 .*\n\ndata: 2 .*\n\nevent: end\ndata:\n\n$/);
  assert.ok(Date.now() - began > 500);
});

Deno.test("they end before the deadline", async () => {
  const text = await (await get("/events?count=100", 2500)).text();
  assert.match(text, /^data: 1 .*\n\nevent: end/);
});

Deno.test("nothing goes on when nobody reads any more", { sanitizeOps: true }, async () => {
  const reader = (await get("/events?count=100")).body!.getReader();
  await reader.read();
  await reader.cancel(); // with sanitizeOps, a timer that went on would fail this test
});

Deno.test("the page listens to the events", async () => {
  const page = await (await get("/")).text();
  assert.match(page, /new EventSource\("\/events"\)/);
  assert.equal((await get("/nowhere")).status, 404);
});
