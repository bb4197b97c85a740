// The bridge: HTTP requests of the bootstrap on one side, the function's handler on the other.
//
//   connect -> load the function -> say that it is loaded, or why not -> POST /invocation, for ever
//
// One connection, one request at a time: a Unix socket (runtime1) or the standard streams (runtime2,
// where the bootstrap ends the process after the first). Raw HTTP/1.1 and no import: Deno.serve
// starts 3 to 5 ms later (docs/decisions.md), and what is not loaded cannot be slow.

const encoder = new TextEncoder();
const decoder = new TextDecoder();
const { parse, stringify } = JSON; // as they were before the function could change them
const { env, exit, stdin, stdout } = Deno;

const ERROR_TYPE = "application/vnd.aws.lambda.error+json";
const SMALL = 64 * 1024; // bytes: messages up to here need no buffer of their own
const PIPE_BUF = 4096; // bytes that the kernel writes to a pipe in one piece
const MARK = 32; // bytes
const DIGITS = 8; // of a result's Content-Length: Lambda takes 6291556 bytes
const RESULT_HEAD = encoder.encode(
  `HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: ${
    " ".repeat(DIGITS)
  }\r\n\r\n`,
);

// --- HTTP over one connection ------------------------------------------------------------------

/** @typedef {{ target: string, headers: Map<string, string>, body: string }} Request */

/**
 * What the bridge needs of a connection.
 * @typedef {{
 *   read: (into: Uint8Array) => Promise<number | null>,
 *   write: (bytes: Uint8Array) => Promise<number>,
 * }} Connection
 */

class Wire {
  #connection;
  #input = new Uint8Array(SMALL);
  #output = new Uint8Array(RESULT_HEAD.length + SMALL);

  /** @param {Connection} connection */
  constructor(connection) {
    this.#connection = connection;
    this.#output.set(RESULT_HEAD);
  }

  /**
   * The next request, or null when the bootstrap is gone.
   * @returns {Promise<Request | null>}
   */
  async receive() {
    let input = this.#input;
    let have = 0;
    let text = "";
    let end = -1; // of the head
    while (end < 0) {
      if (have === input.length) input = grown(input, 2 * have, have);
      const got = await this.#connection.read(have ? input.subarray(have) : input);
      if (got === null) return null;
      have += got;
      text = decoder.decode(input.subarray(0, have));
      end = text.indexOf("\r\n\r\n");
    }
    const { target, headers } = headOf(text.slice(0, end));
    const length = Number(headers.get("content-length") ?? 0);
    if (text.length === have && have === end + 4 + length) { // one read, a byte for each unit
      return { target, headers, body: text.slice(end + 4) };
    }
    const start = endOfHead(input) + 4;
    const total = start + length;
    if (total > input.length) input = grown(input, total, have);
    while (have < total) {
      const got = await this.#connection.read(input.subarray(have, total));
      if (got === null) return null;
      have += got;
    }
    return { target, headers, body: decoder.decode(input.subarray(start, total)) };
  }

  /** Sends a handler's result. @param {string} json */
  sendResult(json) {
    if (json.length * 3 > SMALL) { // UTF-8 has at most 3 bytes for each UTF-16 unit
      return this.send("200 OK", "Content-Type: application/json\r\n", json);
    }
    const output = this.#output;
    const head = RESULT_HEAD.length;
    const { written } = encoder.encodeInto(json, output.subarray(head));
    let rest = written;
    for (let at = head - 5; at > head - 5 - DIGITS; at--, rest = rest / 10 | 0) {
      output[at] = rest || rest === written ? 48 + rest % 10 : 32; // a space before the first digit
    }
    this.#write(output.subarray(0, head + written));
  }

  /**
   * Sends any response.
   * @param {string} status
   * @param {string} headers lines, each with its CRLF
   * @param {string} text
   */
  send(status, headers, text) {
    const body = encoder.encode(text);
    const head = `HTTP/1.1 ${status}\r\n${headers}Content-Length: ${body.length}\r\n\r\n`;
    this.#write(encoder.encode(head), body);
  }

  /**
   * Writes all of it. Not awaited: the next read can be asked for in the same turn of the event
   * loop (150 µs an invocation instead of 168), and what is there to write next is only known
   * when the bootstrap has read all of this. It is gone where a write fails, and receive tells.
   * @param {Uint8Array[]} parts
   */
  async #write(...parts) {
    try {
      for (let rest of parts) {
        while (rest.length) rest = rest.subarray(await this.#connection.write(rest));
      }
    } catch { /* receive() gives null */ }
  }
}

/**
 * The standard streams, which the function may use as well: what the bridge writes goes in frames
 * that begin with a mark, the first thing on standard input, and end with a line feed: Deno's
 * standard output writes up to the last one in one piece. streams.py has the other side.
 * @returns {Connection}
 */
function standardStreams() {
  const frame = new Uint8Array(PIPE_BUF);
  const head = MARK + 4;
  // As they are before the function could change them.
  const read = stdin.read.bind(stdin);
  const writeSync = stdout.writeSync.bind(stdout);
  for (let have = 0; have < MARK;) have += stdin.readSync(frame.subarray(have, MARK)) ?? exit(0);
  return {
    read,
    write: (bytes) => {
      const size = Math.min(bytes.length, PIPE_BUF - head - 1);
      encoder.encodeInto(size.toString(16).padStart(4, "0"), frame.subarray(MARK));
      frame.set(size < bytes.length ? bytes.subarray(0, size) : bytes, head);
      frame[head + size] = 10;
      try {
        writeSync(frame.subarray(0, head + size + 1));
      } catch {
        exit(1); // the function has closed its standard output: there is no way to answer
      }
      return Promise.resolve(size);
    },
  };
}

/** @param {string} head without its empty line */
function headOf(head) {
  const headers = new Map();
  const lines = head.split("\r\n");
  for (let i = 1; i < lines.length; i++) {
    const line = lines[i];
    const colon = line.indexOf(":");
    headers.set(line.slice(0, colon).toLowerCase(), line.slice(colon + 1).trim());
  }
  return { target: lines[0].split(" ")[1], headers };
}

/** @param {Uint8Array} bytes @param {number} size @param {number} used */
function grown(bytes, size, used) {
  const larger = new Uint8Array(size);
  larger.set(bytes.subarray(0, used));
  return larger;
}

/** The index of the empty line that is known to be there. @param {Uint8Array} bytes */
function endOfHead(bytes) {
  let at = bytes.indexOf(13);
  while (bytes[at + 1] !== 10 || bytes[at + 2] !== 13 || bytes[at + 3] !== 10) {
    at = bytes.indexOf(13, at + 1);
  }
  return at;
}

// --- The function ------------------------------------------------------------------------------

/** An error of ours, under a type that Lambda's platform keeps. */
class RuntimeError extends Error {
  /** @param {string} type @param {string} message @param {ErrorOptions} [options] */
  constructor(type, message, options) {
    super(message, options);
    this.name = type;
  }
}

/** @typedef {(event: unknown, context: object) => unknown} Handler */

/**
 * The handler that _HANDLER names: "function.handler" is the export "handler" of
 * function.bundle.js in the task root. The layer's own bundle answers where there is none.
 * @returns {Promise<Handler>}
 */
async function loadHandler() {
  const name = env.get("_HANDLER") ?? "";
  const [, file, path] = /^([^.]+)\.(.+)$/.exec(name) ?? [];
  if (!file || name.includes("..")) {
    throw new RuntimeError(
      "Runtime.MalformedHandlerName",
      `The handler is "${name}"; it must be <file>.<export>, such as function.handler`,
    );
  }
  const root = env.get("LAMBDA_TASK_ROOT") ?? "/var/task";
  const location = `${root}/${file}.bundle.js`;
  const module = await importModule(location, file);
  let handler = module;
  for (const key of path.split(".")) handler = handler?.[key];
  if (typeof handler === "function") return handler;
  const what = handler === undefined ? "is not exported" : `is ${typeof handler}, not a function`;
  throw new RuntimeError(
    "Runtime.HandlerNotFound",
    `"${path}" ${what} in ${location}; it exports: ${Object.keys(module).join(", ") || "nothing"}`,
  );
}

/** @param {string} location @param {string} file */
async function importModule(location, file) {
  try {
    return await import(fileUrl(location));
  } catch (error) {
    if (!(error instanceof TypeError) || !("code" in error)) throw error;
    if (error.code !== "ERR_MODULE_NOT_FOUND") throw error; // Deno has it for syntax errors too
    const { message } = error;
    if (message.startsWith(`Module not found "${fileUrl(location)}"`)) {
      if (file === "function") {
        const dummy = new URL("./function.bundle.js", import.meta.url);
        console.warn(`lambdeno: no ${location}: the runtime layer's dummy function answers`);
        return await import(dummy.href);
      }
      throw new RuntimeError("Runtime.HandlerNotFound", `No ${location}: is the function built?`);
    }
    if (message.startsWith("SyntaxError: ")) {
      throw new RuntimeError("Runtime.UserCodeSyntaxError", message.slice("SyntaxError: ".length));
    }
    throw new RuntimeError("Runtime.ImportModuleError", message);
  }
}

/** @param {string} path */
function fileUrl(path) {
  return "file://" + path.split("/").map(encodeURIComponent).join("/");
}

// --- Errors as Lambda shows them ---------------------------------------------------------------

/** Anything thrown, in the shape of Lambda's Node runtime. @param {unknown} thrown */
function describe(thrown) {
  if (thrown instanceof Error) {
    return {
      errorType: String(thrown.name),
      errorMessage: String(thrown.message),
      trace: String(thrown.stack ?? "").split("\n"),
    };
  }
  return { errorType: typeof thrown, errorMessage: String(thrown), trace: [] };
}

/** @param {Wire} wire @param {unknown} thrown */
function sendError(wire, thrown) {
  let error;
  try {
    error = describe(thrown);
  } catch { // a getter of the thrown value throws itself
    error = { errorType: "handled", errorMessage: "the thrown value cannot be read", trace: [] };
  }
  // The platform keeps types of this form alone and drops others.
  const kept = /^(Runtime|Function)\.[A-Z][a-zA-Z]+$/.test(error.errorType);
  const type = kept ? error.errorType : "Function.Unhandled";
  wire.send(
    "500 Error",
    `Content-Type: ${ERROR_TYPE}\r\nLambda-Runtime-Function-Error-Type: ${type}\r\n`,
    stringify(error),
  );
}

// --- One invocation ----------------------------------------------------------------------------

// What is the same for every invocation of this environment.
const environment = {
  functionName: env.get("AWS_LAMBDA_FUNCTION_NAME"),
  functionVersion: env.get("AWS_LAMBDA_FUNCTION_VERSION"),
  memoryLimitInMB: env.get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE"),
  logGroupName: env.get("AWS_LAMBDA_LOG_GROUP_NAME"),
  logStreamName: env.get("AWS_LAMBDA_LOG_STREAM_NAME"),
};

/** @param {Map<string, string>} headers */
function contextOf(headers) {
  const deadline = Number(headers.get("lambda-runtime-deadline-ms"));
  return {
    ...environment,
    awsRequestId: headers.get("lambda-runtime-aws-request-id"),
    invokedFunctionArn: headers.get("lambda-runtime-invoked-function-arn"),
    clientContext: parsed(headers.get("lambda-runtime-client-context"), "ClientContext"),
    identity: parsed(headers.get("lambda-runtime-cognito-identity"), "CognitoIdentity"),
    tenantId: headers.get("lambda-runtime-aws-tenant-id"),
    xRayTraceId: headers.get("lambda-runtime-trace-id"),
    getRemainingTimeInMillis: () => deadline - Date.now(),
  };
}

/** @param {string | undefined} text @param {string} what */
function parsed(text, what) {
  if (!text) return undefined;
  try {
    return parse(text);
  } catch (error) {
    throw new RuntimeError(
      "Runtime.LambdaContextUnmarshalError",
      `Cannot parse ${what} as json: ${error}`,
    );
  }
}

/** @type {string | undefined} */
let lastTraceId;

/** The AWS SDK and X-Ray read the trace id from the environment. @param {string | undefined} id */
function setTraceId(id) {
  if (id === lastTraceId) return;
  lastTraceId = id;
  if (id) env.set("_X_AMZN_TRACE_ID", id);
  else env.delete("_X_AMZN_TRACE_ID");
}

/** @param {string} body */
function eventOf(body) {
  try {
    return parse(body);
  } catch (error) {
    throw new RuntimeError("Runtime.UnmarshalError", `The event is not JSON: ${error}`);
  }
}

/** @param {unknown} value */
function resultOf(value) {
  try {
    return stringify(value) ?? "null";
  } catch (cause) {
    throw new RuntimeError(
      "Runtime.MarshalError",
      `Cannot send the handler's result as JSON: ${cause}`,
      { cause },
    );
  }
}

/** @param {Wire} wire @param {Handler} handler @param {Request} request */
async function answer(wire, handler, { headers, body }) {
  let result;
  try {
    setTraceId(headers.get("lambda-runtime-trace-id"));
    const value = handler(eventOf(body), contextOf(headers));
    result = resultOf(await value);
  } catch (thrown) {
    console.error("Invoke Error", thrown);
    return sendError(wire, thrown);
  }
  wire.sendResult(result);
}

// --- The bridge's life -------------------------------------------------------------------------

/** Says why the function cannot be loaded. @param {Wire} wire @param {{ thrown: unknown }} failure */
function refuse(wire, { thrown }) {
  console.error("Init Error", thrown);
  sendError(wire, thrown);
}

async function main() {
  const path = env.get("LAMBDENO_SOCKET");
  env.delete("LAMBDENO_SOCKET");
  const connecting = path ? Deno.connect({ transport: "unix", path }) : standardStreams();
  let failure = { thrown: undefined };
  const loading = loadHandler().catch((thrown) => void (failure = { thrown }));
  const wire = new Wire(await connecting);
  const handler = await loading;
  if (!handler) return refuse(wire, failure);
  wire.send("200 OK", "", "");
  for (let request; (request = await wire.receive());) await answer(wire, handler, request);
  exit(0); // the bootstrap is gone, or done with this process: what the function left open ends here
}

await main();
