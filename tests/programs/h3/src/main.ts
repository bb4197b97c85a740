import { H3, readBody, serve } from "h3";

const app = new H3();

app.get("/", () => "Hello h3!");
app.post("/echo/:name", async (event) => ({
  name: event.context.params?.name,
  body: await readBody(event),
}));

serve(app, { port: 3000 });
