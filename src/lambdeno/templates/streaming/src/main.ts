import type { FetchHandler, ServeInfo } from "lambdeno";

const EVERY = 1000; // ms
const MARGIN = 2000; // ms before the deadline: time for the last event to leave

const PAGE = `<!doctype html>
<meta charset="utf-8">
<title>Clock</title>
<h1 id="state">connecting</h1>
<ol id="events"></ol>
<script>
  const state = document.querySelector("#state");
  const source = new EventSource("/events");
  source.onopen = () => state.textContent = "connected";
  source.onmessage = ({ data }) => {
    const line = document.createElement("li");
    line.textContent = data;
    document.querySelector("#events").append(line);
  };
  source.addEventListener("end", () => {
    source.close(); // or else the browser would connect again
    state.textContent = "done";
  });
</script>
`;

/** A page, and the events that it shows as they come. */
const fetch: FetchHandler = (request: Request, info: ServeInfo) => {
  const { pathname, searchParams } = new URL(request.url);
  if (pathname === "/") {
    return new Response(PAGE, { headers: { "content-type": "text/html; charset=utf-8" } });
  }
  if (pathname !== "/events") return new Response("There is no such page\n", { status: 404 });
  const most = Number(searchParams.get("count") ?? 5);
  const left = () => info.lambdaContext.getRemainingTimeInMillis() - MARGIN;
  return new Response(events(most, left), {
    headers: { "content-type": "text/event-stream", "cache-control": "no-store" },
  });
};

/** Server-sent events, one each second; ends in time, and at once when nobody reads any more. */
function events(most: number, left: () => number): ReadableStream<Uint8Array> {
  const encoder = new TextEncoder();
  let count = 0;
  let timer: ReturnType<typeof setInterval>;
  return new ReadableStream({
    start(controller) {
      const tell = () => {
        count++;
        controller.enqueue(encoder.encode(`data: ${count} ${new Date().toISOString()}\n\n`));
        if (count < most && left() > EVERY) return;
        clearInterval(timer);
        controller.enqueue(encoder.encode("event: end\ndata:\n\n"));
        controller.close();
      };
      timer = setInterval(tell, EVERY);
      tell();
    },
    cancel() {
      clearInterval(timer);
      console.log(`nobody reads any more, after ${count} events`);
    },
  });
}

export default { fetch };
