import { Hono } from "hono";
import { HTTPException } from "hono/http-exception";
import type { ServeInfo } from "lambdeno";

interface Order {
  id: string;
  item: string;
  count: number;
}

// Of this execution environment alone: a table of DynamoDB would outlive it.
const orders = new Map<string, Order>();

const app = new Hono<{ Bindings: ServeInfo }>();

app.get("/", (c) => c.text("Orders: POST /orders, GET /orders/:id\n"));

app.post("/orders", async (c) => {
  const body: Partial<Order> | null = await c.req.json().catch(() => null);
  const { item, count } = body ?? {};
  if (typeof item !== "string" || item === "") throw wrong("item must be text");
  if (!Number.isInteger(count) || count! < 1) throw wrong("count must be a number from 1 on");
  const order = { id: crypto.randomUUID(), item, count: count! };
  orders.set(order.id, order);
  return c.json(order, 201, { location: `/orders/${order.id}` });
});

app.get("/orders/:id", (c) => {
  const order = orders.get(c.req.param("id"));
  return order ? c.json(order) : c.notFound();
});

// What Lambda knows of the request is in c.env.
app.get("/about", (c) =>
  c.json({
    requestId: c.env.lambdaContext.awsRequestId,
    address: c.env.remoteAddr.hostname,
    event: Object.keys(c.env.event), // its values have the account's number: not for everybody
  }));

app.notFound((c) => c.json({ error: `There is no ${c.req.path}` }, 404));

app.onError((error, c) => {
  if (error instanceof HTTPException) return c.json({ error: error.message }, error.status);
  throw error; // the invocation fails: Lambda counts it, and the client gets 502
});

function wrong(message: string): HTTPException {
  return new HTTPException(400, { message });
}

export default app;
