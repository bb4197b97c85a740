import { Application, Router } from "@oakserver/oak";

const router = new Router();
router.get("/", (context) => {
  context.response.body = "Hello Oak!";
});
router.post("/echo/:name", async (context) => {
  context.response.body = {
    name: context.params.name,
    body: await context.request.body.json(),
  };
});

const app = new Application();
app.use(router.routes());
app.use(router.allowedMethods());

export default { fetch: app.fetch };
