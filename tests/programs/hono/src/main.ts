import { Hono } from "hono";
import { getCookie, setCookie } from "hono/cookie";
import { logger } from "hono/logger";
import { streamSSE } from "hono/streaming";

const app = new Hono();

app.use(logger());
app.get("/", (c) => c.text("Hello Hono!"));
app.get(
  "/users/:id",
  (c) => c.json({ id: c.req.param("id"), tags: c.req.queries("tag") }),
);
app.post("/form", async (c) => c.json(await c.req.parseBody()));
app.get("/cookie", (c) => {
  setCookie(c, "seen", String(Number(getCookie(c, "seen") ?? 0) + 1), {
    httpOnly: true,
  });
  return c.body(null, 204);
});
app.get("/events", (c) =>
  streamSSE(c, async (stream) => {
    for (let id = 1; id <= 3; id++) {
      await stream.writeSSE({ data: `event ${id}`, id: String(id) });
      await stream.sleep(100);
    }
  }));

export default app;
