import { Elysia, t } from "elysia";

const app = new Elysia()
  .get("/", () => "Hello Elysia!")
  .post("/echo/:name", ({ params, body }) => ({ name: params.name, body }), {
    body: t.Object({ count: t.Number() }),
  });

export default { fetch: (request: Request) => app.fetch(request) };
