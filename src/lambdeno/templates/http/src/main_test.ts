import assert from "node:assert/strict";
import type { Context, ServeInfo, UrlEvent } from "lambdeno";
import app from "./main.ts";

function post(body: string) {
  return app.request("/orders", { method: "POST", body });
}

Deno.test("an order can be read where its location says", async () => {
  const made = await post(JSON.stringify({ item: "tea", count: 2 }));
  assert.equal(made.status, 201);
  const location = made.headers.get("location")!;
  const { id, ...order } = await made.json();
  assert.deepEqual(order, { item: "tea", count: 2 });
  const read = await app.request(location);
  assert.equal(read.status, 200);
  assert.equal((await read.json()).id, id);
});

Deno.test("an order that is none is refused with a reason", async () => {
  for (
    const body of [
      "",
      "{",
      "null",
      "{}",
      '{"item": "tea", "count": 0}',
      '{"item": "tea", "count": 1.5}',
    ]
  ) {
    const answer = await post(body);
    assert.equal(answer.status, 400);
    assert.match((await answer.json()).error, /must be/);
  }
});

Deno.test("what is not there is 404, as JSON", async () => {
  for (const path of ["/orders/none", "/nowhere"]) {
    const answer = await app.request(path);
    assert.equal(answer.status, 404);
    assert.equal((await answer.json()).error, `There is no ${path}`);
  }
});

Deno.test("what Lambda knows of a request is in c.env", async () => {
  const env = {
    lambdaContext: { awsRequestId: "c6af9ac6" } as Context,
    remoteAddr: { transport: "tcp", hostname: "192.0.2.1", port: 0 },
    event: { rawPath: "/about", requestContext: {} } as UrlEvent,
  } as Partial<ServeInfo>;
  const answer = await app.request("/about", {}, env);
  assert.deepEqual(await answer.json(), {
    requestId: "c6af9ac6",
    address: "192.0.2.1",
    event: ["rawPath", "requestContext"],
  });
});
