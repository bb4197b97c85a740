// The bridge: HTTP requests of the bootstrap on one side, the function's handler on the other.
//
//   connect -> load the function -> say that it is loaded, or why not -> POST /invocation, for ever
//
// One connection, one request at a time: a Unix socket (runtime1) or the standard streams (runtime2,
// where the bootstrap ends the process after the first). Raw HTTP/1.1 and no import: Deno.serve
// starts 3 to 5 ms later (docs/decisions.md), and what is not loaded cannot be slow. web.js and
// streaming.js are loaded for functions that need them.

const encoder = new TextEncoder();
const decoder = new TextDecoder();
// As they were before the function could change them.
const { parse, stringify } = JSON;
const { addSignalListener, env, exit, statSync, stdin, stdout } = Deno;
const writeOutput = stdout.writeSync.bind(stdout);
const { Console, inspectArgs } = internals();

const ERROR_TYPE = "application/vnd.aws.lambda.error+json";
const SMALL = 64 * 1024; // bytes: messages up to here need no buffer of their own
const ATOMIC = 16 * 1024; // bytes that a Unix socket takes as a whole or not at all
const MOST_LOGS = 100; // events of one turn
const PIPE_BUF = 4096; // bytes that the kernel writes to a pipe in one piece
const MARK = 32; // bytes
const DIGITS = 8; // of a result's Content-Length: Lambda takes 6291556 bytes
const HERE = encoder.encode("HTTP/1.1 102 Here\r\nContent-Length: 0\r\n\r\n");
const RESULT_HEAD = encoder.encode(
  `HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: ${
    " ".repeat(DIGITS)
  }\r\n\r\n`,
);

/**
 * What formats console's arguments. The way to Deno's internals is closed behind it: there, a
 * function would find the bridge's connection.
 */
function internals() {
  const all = Object(Reflect.get(Deno, Reflect.get(Deno, "internal")));
  Reflect.deleteProperty(Deno, Reflect.get(Deno, "internal"));
  return {
    /** @type {new (print: (text: string, level: number) => void) => Console} */
    Console: all.Console,
    /** @type {(values: unknown[]) => string} */
    inspectArgs: all.inspectArgs,
  };
}

// --- HTTP over one connection ------------------------------------------------------------------

/**
 * ``isCancel``: nobody reads the response that is being streamed.
 * @typedef {{ headers: Map<string, string>, body: string, isText: boolean, isCancel: boolean }} Received
 */

/**
 * What the bridge needs of a connection; ``writeSync`` where it has that, else ``write``.
 * @typedef {{
 *   read: (into: Uint8Array) => Promise<number | null>,
 *   write: (bytes: Uint8Array) => Promise<number>,
 *   writeSync?: (bytes: Uint8Array) => number,
 *   keepAlive?: (wanted: boolean) => void,
 * }} Connection
 */

class Wire {
  #connection;
  #input = new Uint8Array(SMALL);
  #output = new Uint8Array(RESULT_HEAD.length + SMALL);
  /** @type {Promise<void> | null} what is being written piece by piece */
  #writing = null;
  #logs = 0; // log events that may not yet be in the kernel
  #logBytes = 0;
  /** @type {((event: Uint8Array) => Promise<void>) | null} sends a log event in the middle of a stream */
  logInStream = null;

  /** @param {Connection} connection */
  constructor(connection) {
    this.#connection = connection;
    this.keepAlive = connection.keepAlive ?? ignore;
    this.#output.set(RESULT_HEAD);
  }

  /**
   * The next request, or null when the bootstrap is gone.
   * @returns {Promise<Received | null>}
   */
  async receive() {
    let have = 0;
    let start = -1; // of the body
    let text = "";
    while (start < 0) {
      if (have === this.#input.length) this.#input = grown(this.#input, 2 * have, have);
      const got = await this.#connection.read(have ? this.#input.subarray(have) : this.#input);
      if (got === null) return null;
      have += got;
      if (have <= SMALL) {
        text = decoder.decode(this.#input.subarray(0, have));
        const end = text.indexOf("\r\n\r\n");
        if (end < 0) continue;
        const headers = headersOf(text.slice(0, end));
        if (text.length === have && have === end + 4 + lengthIn(headers)) { // a byte for each unit
          const isText = !text.includes("\ufffd");
          return {
            headers,
            body: text.slice(end + 4),
            isText,
            isCancel: text.startsWith("DELETE"),
          };
        }
      }
      start = endOfHead(this.#input, have);
    }
    const head = decoder.decode(this.#input.subarray(0, start));
    const headers = headersOf(head.slice(0, -4));
    const total = start + lengthIn(headers);
    if (total > this.#input.length) this.#input = grown(this.#input, total, have);
    while (have < total) {
      const got = await this.#connection.read(this.#input.subarray(have, total));
      if (got === null) return null;
      have += got;
    }
    const bytes = this.#input.subarray(start, total);
    const body = decoder.decode(bytes);
    const isText = !body.includes("\ufffd") || isUtf8(bytes);
    return { headers, body, isText, isCancel: head.startsWith("DELETE") };
  }

  /** Sends a handler's result. @param {string} json */
  sendResult(json) {
    const head = RESULT_HEAD.length;
    if (head + json.length * 3 > this.#output.length) { // UTF-8 has at most 3 bytes for a UTF-16 unit
      // Room for text of ASCII, and some more; what is kept is not mapped page by page each time.
      const room = head + json.length + SMALL;
      if (room > this.#output.length) this.#output = grown(RESULT_HEAD, room, head);
    }
    const output = this.#output;
    const { read, written } = encoder.encodeInto(json, output.subarray(head));
    if (read < json.length || written >= 10 ** DIGITS) {
      return this.send("200 OK", "Content-Type: application/json\r\n", json);
    }
    let rest = written;
    for (let at = head - 5; at > head - 5 - DIGITS; at--, rest = rest / 10 | 0) {
      output[at] = rest || rest === written ? 48 + rest % 10 : 32; // a space before the first digit
    }
    this.write(output.subarray(0, head + written));
  }

  /**
   * Sends any response; resolves when it is in the kernel's hands.
   * @param {string} status
   * @param {string} headers lines, each with its CRLF
   * @param {string | Uint8Array} content
   */
  send(status, headers, content) {
    const body = typeof content === "string" ? encoder.encode(content) : content;
    const head = encoder.encode(
      `HTTP/1.1 ${status}\r\n${headers}Content-Length: ${body.length}\r\n\r\n`,
    );
    if (head.length + body.length > ATOMIC) return this.write(head, body);
    const message = new Uint8Array(head.length + body.length);
    message.set(head);
    message.set(body, head.length);
    return this.write(message);
  }

  /**
   * Sends a whole log event, unless it might not be in the kernel when this returns: what is logged
   * right before this process ends must not be lost. Deno starts 128 operations a turn at once.
   * @param {Uint8Array} event
   */
  sendLog(event) {
    if (!this.#connection.writeSync) {
      if (this.#writing || event.length > ATOMIC / 2) return false;
      if (this.#logs === MOST_LOGS || this.#logBytes + event.length > SMALL) return false;
    }
    this.#logs++;
    this.#logBytes += event.length;
    const sending = this.logInStream ? this.logInStream(event) : this.send("103 Log", "", event);
    sending.then(() => {
      this.#logs--;
      this.#logBytes -= event.length;
    });
    return true;
  }

  /**
   * Writes all of it. Not awaited by those who send results: the next read can be asked for in the
   * same turn of the event loop (150 us an invocation instead of 168), and what is there to write
   * next is only known when the bootstrap has read all of this. What is small is in the kernel
   * when this returns, so that it survives this process. It is gone where a write fails, and
   * receive tells.
   * @param {Uint8Array[]} parts
   */
  write(...parts) {
    const { writeSync } = this.#connection;
    if (writeSync) {
      for (let rest of parts) {
        while (rest.length) rest = rest.subarray(writeSync(rest));
      }
      return Promise.resolve();
    }
    if (this.#writing) {
      parts = parts.map((part) => part.slice()); // the output buffer will have been used again
      this.#writing = this.#writing.then(() => this.#writeAll(parts));
    } else if (parts.length === 1 && parts[0].length <= ATOMIC) {
      return this.#connection.write(parts[0]).then(() => {}, () => {});
    } else {
      this.#writing = this.#writeAll(parts);
    }
    const writing = this.#writing;
    return writing.then(() => {
      if (this.#writing === writing) this.#writing = null;
    });
  }

  /** Resolves when nothing is on its way. */
  async flushed() {
    await this.#writing;
  }

  /** @param {Uint8Array[]} parts */
  async #writeAll(parts) {
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
  const read = stdin.read.bind(stdin); // as it is before the function could change it
  const refer = stdinMethod("REF");
  const unrefer = stdinMethod("UNREF");
  for (let have = 0; have < MARK;) have += stdin.readSync(frame.subarray(have, MARK)) ?? exit(0);
  return {
    read,
    write: () => Promise.resolve(0), // never asked
    writeSync: (bytes) => {
      const size = Math.min(bytes.length, PIPE_BUF - head - 1);
      encoder.encodeInto(size.toString(16).padStart(4, "0"), frame.subarray(MARK));
      frame.set(size < bytes.length ? bytes.subarray(0, size) : bytes, head);
      frame[head + size] = 10;
      try {
        writeOutput(frame.subarray(0, head + size + 1));
      } catch {
        exit(1); // the function has closed its standard output: there is no way to answer
      }
      return size;
    },
    keepAlive: (wanted) => wanted ? refer() : unrefer(),
  };
}

/**
 * A method of standard input that Deno names with a symbol; one that a release lacks does nothing.
 * @param {string} name @returns {() => void}
 */
function stdinMethod(name) {
  const symbols = Object.getOwnPropertySymbols(Object.getPrototypeOf(stdin));
  const symbol = symbols.find(({ description }) => description === name);
  return symbol ? Reflect.get(stdin, symbol).bind(stdin) : ignore;
}

/** @param {string} path @returns {Promise<Connection>} */
async function socketAt(path) {
  const connection = await Deno.connect({ transport: "unix", path });
  return {
    read: connection.read.bind(connection),
    write: connection.write.bind(connection),
    keepAlive: (wanted) => wanted ? connection.ref() : connection.unref(),
  };
}

/** The bridge itself, once it is there. @type {Wire | null} */
let bridge = null;

/**
 * Not inside main(): what is compiled while the function loads must hold no functions, for V8 numbers
 * them, and its code cache with these numbers would differ from build to build.
 * @param {Connection} connection
 */
function connected(connection) {
  bridge = new Wire(connection);
  // From now on, the bootstrap hears of Deno.exit.
  if (connection.writeSync) connection.writeSync(HERE);
  else connection.write(HERE).catch(ignore);
  return bridge;
}

function ignore() {}

/** @param {Map<string, string>} headers */
function lengthIn(headers) {
  return Number(headers.get("content-length") ?? 0);
}

/** @param {string} head without its empty line */
function headersOf(head) {
  const headers = new Map();
  let name = "";
  const lines = head.split("\r\n");
  for (let i = 1; i < lines.length; i++) {
    const line = lines[i];
    if (line.startsWith(" ") || line.startsWith("\t")) { // it goes on (RFC 9112, 5.2)
      headers.set(name, `${headers.get(name)} ${line.trim()}`.trim());
      continue;
    }
    const colon = line.indexOf(":");
    name = line.slice(0, colon).toLowerCase();
    headers.set(name, line.slice(colon + 1).trim());
  }
  return headers;
}

/** @param {Uint8Array} bytes @param {number} size @param {number} used */
function grown(bytes, size, used) {
  const larger = new Uint8Array(size);
  larger.set(bytes.subarray(0, used));
  return larger;
}

/** @param {Uint8Array} bytes */
function isUtf8(bytes) {
  try {
    new TextDecoder("utf-8", { fatal: true }).decode(bytes);
    return true;
  } catch {
    return false;
  }
}

/** Where the body begins, or -1. @param {Uint8Array} bytes @param {number} have */
function endOfHead(bytes, have) {
  for (let at = bytes.indexOf(13); at >= 0 && at + 3 < have; at = bytes.indexOf(13, at + 1)) {
    if (bytes[at + 1] === 10 && bytes[at + 2] === 13 && bytes[at + 3] === 10) return at + 4;
  }
  return -1;
}

// --- Logs --------------------------------------------------------------------------------------

const LEVELS = ["TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL"];
const [TRACE, DEBUG, INFO, WARN, ERROR, FATAL] = LEVELS.keys();
const CONSOLE_LEVELS = [DEBUG, INFO, WARN, ERROR]; // as Deno's Console numbers them
const isJson = env.get("AWS_LAMBDA_LOG_FORMAT") === "JSON";
const least = LEVELS.indexOf((env.get("AWS_LAMBDA_LOG_LEVEL") ?? "").toUpperCase());

/** Whether the bootstrap takes whole log events, since the platform does. */
let isFramed = false;

/** The request that is handled, or was last. @type {{ id?: string, tenantId?: string }} */
let request = {};

/** What a text event begins with, where DENO_PREFIX says so. @type {Prefix | null} */
let prefix = null;

/** @typedef {(requestId: string | undefined, level: string) => string} Prefix */

/**
 * The community layer's DENO_PREFIX: the inside of a template literal, with requestId and level.
 * @param {string} template
 */
function setPrefix(template) {
  try {
    prefix = /** @type {Prefix} */ (new Function("requestId", "level", `return \`${template}\`;`));
    prefix("a", "TEST");
  } catch (error) {
    prefix = () => "";
    logValues(WARN, [`warn: DENO_PREFIX ${/** @type {Error} */ (error).message}`]);
  }
}

/** One log event, in the form of Lambda's Node runtime. @param {number} level @param {string} text */
function logText(level, text) {
  if (level < least) return;
  const start = prefix
    ? prefix(request.id, LEVELS[level])
    : `${now()}\t${request.id}\t${LEVELS[level]}\t`;
  writeLog(level, start + text);
}

/** @param {number} level @param {object} fields */
function logRecord(level, fields) {
  if (level < least) return;
  const { id: requestId, tenantId } = request;
  writeLog(
    level,
    stringify(
      { timestamp: now(), level: LEVELS[level], requestId, tenantId, ...fields },
      (_key, value) => isError(value) ? detailed(value, "stackTrace") : value,
    ),
  );
}

function now() {
  return new Date().toISOString();
}

/** @param {number} level @param {string} text */
function writeLog(level, text) {
  if (isFramed && bridge?.sendLog(logEvent(level, encoder.encode(text)))) return;
  // One event is one line: Lambda's console shows a carriage return as a new one.
  let rest = encoder.encode(text.replaceAll("\n", "\r") + "\n");
  try {
    while (rest.length) rest = rest.subarray(writeOutput(rest));
  } catch { /* the function has closed its standard output */ }
}

/**
 * A frame of Lambda's telemetry descriptor: type, length, microseconds, text; big-endian.
 * https://github.com/aws/aws-lambda-nodejs-runtime-interface-client/blob/main/src/LogPatch.js
 * @param {number} level @param {Uint8Array} text
 */
function logEvent(level, text) {
  const event = new Uint8Array(16 + text.length);
  const view = new DataView(event.buffer);
  view.setUint32(0, (isJson ? 0xa55a0002 : 0xa55a0003) | 4 * (level + 1));
  view.setUint32(4, text.length);
  view.setBigUint64(8, BigInt(Date.now()) * 1000n);
  event.set(text, 16);
  return event;
}

/** @param {number} level @param {unknown[]} values what a call of console was given */
function logValues(level, values) {
  if (level < least) return;
  if (!isJson) return logText(level, inspectArgs(values));
  const [first] = values;
  const error = values.find(isError);
  if (values.length !== 1) {
    const { errorType, errorMessage, stackTrace } = error ? detailed(error, "stackTrace") : {};
    return logRecord(level, { message: inspectArgs(values), errorType, errorMessage, stackTrace });
  }
  const hasForm = !["undefined", "symbol", "function"].includes(typeof first); // in JSON
  const message = hasForm ? first : inspectArgs(values);
  try {
    logRecord(level, { message });
  } catch { // a cycle, a BigInt
    logRecord(level, { message: inspectArgs(values) });
  }
}

/** What was thrown, with all that is known of it. @param {string} what @param {unknown} thrown */
function logThrown(what, thrown) {
  try {
    logError(what, thrown);
  } catch { // a proxy that is revoked, an inspection that throws
    logValues(ERROR, [`${what}\tthe thrown value cannot be read`]);
  }
}

/** @param {string} what @param {unknown} thrown */
function logError(what, thrown) {
  if (isJson) return logValues(ERROR, [thrown]);
  logText(
    ERROR,
    `${what}\t${isError(thrown) ? stringify(detailed(thrown, "stack")) : inspectArgs([thrown])}`,
  );
}

/** Has every method of console write whole log events with their level. */
function patchConsole() {
  /** @type {(level: number) => (...values: unknown[]) => void} */
  const method = (level) => (...values) => logValues(level, values);
  const formatting = new Console((text, level) =>
    isJson
      ? logRecord(CONSOLE_LEVELS[level] ?? INFO, { message: text.replace(/\n$/, "") })
      : logText(CONSOLE_LEVELS[level] ?? INFO, text.replace(/\n$/, ""))
  );
  /** @type {Record<string, (...values: unknown[]) => void>} */
  const methods = {
    trace: (...values) => {
      const stack = String(new Error().stack).split("\n").slice(2).join("\n");
      logValues(TRACE, [`Trace: ${inspectArgs(values)}\n${stack}`]);
    },
    fatal: method(FATAL),
  };
  if (isJson) {
    Object.assign(methods, { debug: method(DEBUG), info: method(INFO), log: method(INFO) });
    Object.assign(methods, { warn: method(WARN), error: method(ERROR) });
  }
  Object.assign(console, formatting, methods);
}

// --- Errors as Lambda shows them ---------------------------------------------------------------

const DEEPEST = 8; // causes of causes
const MOST = 64; // errors in one: causes, and what an AggregateError collects
const X_RAY = { message: 512, line: 1024, frames: 20, header: 64 * 1024 }; // characters, lines, bytes
const BRIDGE = import.meta.url.slice(0, -"runtime.js".length); // and what belongs to it

/** An error of ours, under a type that Lambda's platform keeps. */
class RuntimeError extends Error {
  /** @param {string} type @param {string} message @param {ErrorOptions} [options] */
  constructor(type, message, options) {
    super(message, options);
    this.name = type;
  }
}

/** @typedef {{ name?: unknown, message?: unknown, stack?: unknown, cause?: unknown, errors?: unknown }} ErrorLike */

/** As Node's runtime has it: what looks like an error is one. @param {unknown} value @returns {value is ErrorLike} */
function isError(value) {
  if (value instanceof Error) return true;
  return typeof value === "object" && value !== null && "message" in value && "stack" in value &&
    "name" in value;
}

/** The lines of an error's stack, without the bridge's own. @param {ErrorLike} error */
function stackOf(error) {
  const lines = String(error.stack ?? "").split("\n");
  const ours = lines.findIndex((line) => line.includes(BRIDGE));
  if (ours > 0 && lines[ours - 1] === "    at new Promise (<anonymous>)") lines.splice(ours - 1, 1);
  return lines.filter((line) => !line.includes(BRIDGE));
}

/** @typedef {{ errorType: string, errorMessage: string, trace: string[], cause?: object, errors?: object[] }} Described */

/**
 * Anything thrown, in the shape of Lambda's Node runtime; causes and collected errors have the same.
 * @param {unknown} thrown @param {Bounds} [bounds] @returns {Described}
 */
function described(thrown, bounds = { depth: 0, left: MOST }) {
  bounds.left--;
  if (!isError(thrown)) {
    return { errorType: typeof thrown, errorMessage: String(thrown), trace: [] };
  }
  const errorMessage = String(thrown.message);
  return {
    errorType: String(thrown.name),
    errorMessage,
    trace: stackOf(thrown),
    ...related(thrown, described, bounds),
  };
}

/** @typedef {{ depth: number, left: number }} Bounds left: how many errors may still be shown */

/**
 * An error's cause, and the errors that it has collected, as far as the bounds go: they may be cycles.
 * @template T
 * @param {ErrorLike} error @param {(value: unknown, bounds: Bounds) => T} show @param {Bounds} bounds
 */
function related(error, show, bounds) {
  /** @type {{ cause?: T | typeof UNREADABLE, errors?: (T | typeof UNREADABLE)[] }} */
  const found = {};
  if (bounds.depth === DEEPEST || bounds.left <= 0) return found;
  bounds.depth++;
  if (error.cause !== undefined) found.cause = shown(error.cause, show, bounds);
  if (error instanceof AggregateError) {
    found.errors = [];
    for (const one of error.errors) {
      if (bounds.left <= 0) break;
      found.errors.push(shown(one, show, bounds));
    }
  }
  bounds.depth--;
  return found;
}

const UNREADABLE = {
  errorType: "handled",
  errorMessage: "the thrown value cannot be read",
  trace: /** @type {string[]} */ ([]),
};

/**
 * Something that may throw when it is looked at.
 * @template T
 * @param {unknown} value @param {(value: unknown, bounds: Bounds) => T} show @param {Bounds} bounds
 */
function shown(value, show, bounds) {
  try {
    return show(value, bounds);
  } catch {
    return UNREADABLE;
  }
}

/**
 * An error for the log: its own properties too. @param {ErrorLike} error @param {string} stackKey
 * @param {Bounds} [bounds] @returns {Record<string, unknown>}
 */
function detailed(error, stackKey, bounds = { depth: 0, left: MOST }) {
  bounds.left--;
  /** @type {Record<string, unknown>} */
  const found = {};
  try {
    found.errorType = typeOf(error);
    found.errorMessage = String(error.message);
    /** @type {(value: unknown) => unknown} */
    const show = (value) => isError(value) ? detailed(value, stackKey, bounds) : plain(value);
    for (const [key, value] of Object.entries(error)) {
      if (["cause", "errors", "name", "message", "stack"].includes(key)) continue;
      found[key] = bounds.left > 0 ? show(value) : plain(value);
    }
    found[stackKey] = stackOf(error);
    Object.assign(found, related(error, show, bounds));
  } catch { // a getter throws
    found.errorMessage ??= "the thrown value cannot be read";
  }
  return found;
}

/** The class of an error that has not set its name. @param {ErrorLike} error */
function typeOf(error) {
  const name = String(error.name);
  return name === "Error" ? error.constructor?.name || name : name;
}

/** A value that can be JSON. @param {unknown} value */
function plain(value) {
  try {
    return stringify(value) === undefined ? inspectArgs([value]) : value;
  } catch {
    return inspectArgs([value]);
  }
}

/**
 * Says that the running invocation, or the start, has failed.
 * @param {Wire} wire @param {unknown} thrown
 * @param {{ otherwise?: string, status?: string }} [options] the type of what has no name for the platform
 */
function sendError(wire, thrown, { otherwise = "Function.Unhandled", status = "500 Error" } = {}) {
  const { error, body, type } = errorOf(thrown, otherwise);
  const cause = xRayCause(error);
  let headers = `Content-Type: ${ERROR_TYPE}\r\nLambda-Runtime-Function-Error-Type: ${type}\r\n`;
  if (cause) headers += `Lambda-Runtime-Function-XRay-Error-Cause: ${cause}\r\n`;
  return wire.send(status, headers, body);
}

/**
 * Anything thrown, described, as JSON, and under a type that the platform keeps.
 * @param {unknown} thrown @param {string} [otherwise]
 */
function errorOf(thrown, otherwise = "Function.Unhandled") {
  /** @type {Described} */
  let error;
  let body;
  try {
    error = described(thrown);
    body = stringify(error);
  } catch { // a getter of the thrown value throws itself
    error = UNREADABLE;
    body = stringify(error);
  }
  return { error, body, type: platformType(error.errorType, otherwise) };
}

/** The platform keeps types of this form alone and drops others. @param {string} name @param {string} otherwise */
function platformType(name, otherwise) {
  if (/^(Runtime|Function)\.[A-Z][a-zA-Z]+$/.test(name)) return name;
  return otherwise === "Function.Unhandled" && /^[A-Z][a-zA-Z]+$/.test(name)
    ? `Function.${name}`
    : otherwise;
}

/**
 * The error as X-Ray shows it, in the characters of a header; none where it is too large.
 * https://docs.aws.amazon.com/xray/latest/devguide/xray-api-segmentdocuments.html
 * @param {Described} error
 */
function xRayCause(error) {
  const exceptions = [];
  const paths = new Set();
  for (let one = error; one; one = /** @type {Described} */ (one.cause)) {
    const stack = [];
    for (const line of one.trace) {
      if (stack.length === X_RAY.frames) break;
      if (line.length > X_RAY.line) continue;
      const [, label = "anonymous", path, row] =
        /^\s*at (?:async )?(?:(.+) \()?(?:file:\/\/)?(.+?):(\d+):\d+\)?$/.exec(line) ?? [];
      if (!path || stack.length === X_RAY.frames) continue;
      stack.push({ path, line: Number(row), label });
      paths.add(path);
    }
    exceptions.push({
      type: one.errorType,
      message: one.errorMessage.slice(0, X_RAY.message),
      stack,
    });
  }
  const cause = { working_directory: taskRoot(), exceptions, paths: [...paths] };
  const text = stringify(cause).replaceAll(
    /[^\x20-\x7e]/g,
    (unit) => "\\u" + unit.charCodeAt(0).toString(16).padStart(4, "0"),
  );
  return text.length > X_RAY.header ? "" : text;
}

// --- The function ------------------------------------------------------------------------------

/** @typedef {(event: unknown, context: object, callback: Callback) => unknown} Handler */
/** @typedef {(error?: unknown, result?: unknown) => void} Callback */
/** @typedef {Record<string, any>} Module */
/** @typedef {{ fetch: (request: Request, info: object) => unknown, onError?: (error: unknown) => unknown }} Application */

/**
 * What takes the function's events: an application those of HTTP, the handler all others, or all.
 * ``rest`` settles when a module has loaded that went on behind Deno.serve.
 * @typedef {object} Loaded
 * @property {Handler | null} handler
 * @property {import("./web.js").Web | null} web
 * @property {Promise<unknown> | null} rest
 * @property {unknown} shutdown
 */

const EXTENSIONS = ["ts", "mts", "js", "mjs"]; // of a function that is no bundle
const DEFAULT_EXPORT = "handler"; // as lambdeno.toml has it, and what it may be without
const SERVE_TIME = 5000; // ms that a function may take from its load to Deno.serve
const REST_TIME = 500; // ms that the rest of its module may take, for an event that its server cannot take
const STREAMING = Symbol.for("aws.lambda.runtime.handler.streaming"); // as Lambda's Node runtime has them
const HIGH_WATER_MARK = Symbol.for("aws.lambda.runtime.handler.streaming.highWaterMark");
const OCTETS = "application/octet-stream";
const PRELUDE = "application/vnd.awslambda.http-integration-response";

/** A result that goes to Lambda while it is made. */
class Streamed {
  /**
   * @param {import("./streaming.js").Body} body
   * @param {string} contentType
   * @param {object} [prelude] status, headers and cookies, where the content type says that they come first
   */
  constructor(body, contentType = OCTETS, prelude = undefined) {
    this.body = body;
    this.contentType = contentType;
    this.prelude = prelude;
  }
}

/** What web.js and streaming.js use of this module, which no function may import. */
const tools = { RuntimeError, Streamed, PRELUDE, errorOf, sendError, encoder };

/** @returns {Promise<typeof import("./web.js")>} */
function webModule() {
  return import(BRIDGE + "web.js"); // no literal: Deno would read that file at each start
}

/** @returns {Promise<typeof import("./streaming.js")>} */
function streamModule() {
  return import(BRIDGE + "streaming.js");
}

/** @returns {Promise<{ Writable: typeof import("node:stream").Writable }>} */
function nodeStream() {
  return import(["node", "stream"].join(":"));
}

function taskRoot() {
  return env.get("LAMBDA_TASK_ROOT") ?? "/var/task";
}

/**
 * What _HANDLER names: "function.handler" is the export "handler" of function.bundle.js in the task
 * root. The layer's own bundle answers where there is none.
 * @returns {Promise<Loaded>}
 */
async function loadFunction() {
  const name = env.get("_HANDLER") ?? "";
  const [, file, path] = /^(?:\.\/)?([^.]+)\.(.+)$/.exec(name) ?? [];
  if (!file || name.includes("..")) {
    throw new RuntimeError(
      "Runtime.MalformedHandlerName",
      `The handler is "${name}"; it must be <file>.<export>, such as function.handler`,
    );
  }
  const serve = Object(Object.getOwnPropertyDescriptor(Deno, "serve"));
  Deno.serve = /** @type {any} */ (capture);
  const importing = importModule(pathOf(file), file);
  const module = await Promise.race([importing, serving]) ?? null;
  /** @type {Loaded} */
  const loaded = { handler: null, web: null, rest: null, shutdown: module?.shutdown };
  const { value, holder } = exportOf(module, path);
  let application = served ?? applicationIn(value) ?? applicationIn(module?.default);
  if (!application && value === undefined && path === DEFAULT_EXPORT) {
    application = await lateServe();
  }
  Object.defineProperty(Deno, "serve", serve);
  if (typeof value === "function") loaded.handler = await handlerOf(value, module, holder);
  else if (!application || (value === undefined && module && path !== DEFAULT_EXPORT)) {
    throw notFound(module, path, value);
  }
  if (application) {
    const { Web } = await webModule();
    loaded.web = new Web(application, env.get("LAMBDENO_INVOKE_MODE"), !loaded.handler, tools);
    await loaded.web.warm();
    if (loaded.web.isStreaming) await streamModule();
  }
  if (!module) loaded.rest = loadRest(importing, loaded, path);
  return loaded;
}

/** Where the function's file is, were it a bundle. @param {string} file */
function pathOf(file) {
  return `${taskRoot()}/${file}.${env.get("HANDLER_EXT") || "bundle.js"}`;
}

/**
 * What is exported under a path such as "orders.create". A class stands for an instance of it where
 * the next name is that of a method.
 * @param {Module | null} module @param {string} path
 */
function exportOf(module, path) {
  let holder = module;
  let value = module;
  for (const key of path.split(".")) {
    holder = value;
    const type = /** @type {any} */ (value);
    if (typeof type === "function" && type[key] === undefined) {
      if (typeof type.prototype?.[key] === "function") holder = new type();
    }
    value = holder?.[key];
  }
  return { value, holder };
}

/** What `deno serve` runs. @param {unknown} value @returns {Application | null} */
function applicationIn(value) {
  if (value === null || value === undefined) return null;
  return typeof (/** @type {any} */ (value)).fetch === "function"
    ? /** @type {any} */ (value)
    : null;
}

/**
 * A handler as it is called; one made by awslambda.streamifyResponse gets a stream to write to.
 * @param {any} value @param {Module | null} module @param {Module | null} holder @returns {Promise<Handler>}
 */
async function handlerOf(value, module, holder) {
  const handler = holder === module ? value : value.bind(holder);
  const mode = value[STREAMING];
  if (mode === "response") {
    const { nodeHandler } = await streamModule();
    return nodeHandler(handler, await nodeStream(), value[HIGH_WATER_MARK], tools);
  }
  if (mode !== undefined) {
    throw new RuntimeError(
      "Runtime.MalformedStreamingHandler",
      `The handler's streaming mode is "${String(mode)}"; it can be "response" alone`,
    );
  }
  if (Object.prototype.toString.call(value) === "[object AsyncGeneratorFunction]") {
    await streamModule();
  }
  return handler;
}

/** @param {Module | null} module @param {string} path @param {unknown} value */
function notFound(module, path, value) {
  const exported = `in ${location}; it exports: ${
    Object.keys(module ?? {}).join(", ") || "nothing"
  }`;
  if (value === undefined) {
    return new RuntimeError("Runtime.HandlerNotFound", `"${path}" is not exported ${exported}`);
  }
  return new RuntimeError(
    "Runtime.HandlerNotFunction",
    `"${path}" is ${value === null ? "null" : typeof value}, not a function ${exported}`,
  );
}

/** The handler beside a Deno.serve whose module goes on loading. @param {Promise<Module>} importing @param {Loaded} loaded @param {string} path */
async function loadRest(importing, loaded, path) {
  const module = await importing; // an error is one that nobody has caught
  const { value, holder } = exportOf(module, path);
  if (typeof value !== "function") return;
  loaded.handler = await handlerOf(value, module, holder);
  if (loaded.web) loaded.web.takesAll = false;
}

/** Waits for a handler that may come behind Deno.serve; once, and not for a module that is never over. @param {Loaded} loaded */
async function restOf(loaded) {
  const late = Promise.withResolvers();
  const timer = setTimeout(late.resolve, REST_TIME);
  await Promise.race([loaded.rest, late.promise]);
  clearTimeout(timer);
  loaded.rest = null;
}

/** The file that the function was loaded from. */
let location = "";

/** @param {string} path @param {string} file of _HANDLER @returns {Promise<Module>} */
async function importModule(path, file) {
  location = path;
  try {
    return await import(fileUrl(path));
  } catch (error) {
    if (error instanceof Deno.errors.NotCapable) throw notPermitted(error);
    if (error instanceof SyntaxError) throw notJavaScript(error);
    if (!(error instanceof TypeError) || !("code" in error)) throw error;
    if (error.code !== "ERR_MODULE_NOT_FOUND") throw error; // Deno has it for syntax errors too
    const { message } = error;
    if (message.startsWith(`Module not found "${fileUrl(path)}"`)) {
      return await importOther(path, file);
    }
    if (message.startsWith("SyntaxError: ")) {
      throw new RuntimeError("Runtime.UserCodeSyntaxError", message.slice("SyntaxError: ".length));
    }
    if (/^Requires \w+ access/.test(message)) throw notPermitted(error);
    throw new RuntimeError("Runtime.ImportModuleError", message);
  }
}

/** What stands where a bundle is missing: the function's own modules, or the layer's dummy. @param {string} path @param {string} file */
async function importOther(path, file) {
  if (path.endsWith(`/${file}.bundle.js`)) {
    const base = path.slice(0, -"bundle.js".length);
    for (const extension of EXTENSIONS) {
      if (isThere(base + extension)) return await importModule(base + extension, file);
    }
    if (file === "function") {
      const dummy = new URL("./function.bundle.js", import.meta.url);
      logValues(WARN, [`lambdeno: no ${path}: the runtime layer's dummy function answers`]);
      return await import(dummy.href);
    }
  }
  throw new RuntimeError(
    "Runtime.BundleNotFound",
    `No ${path}: is the function built, and is that its handler?`,
  );
}

/** @param {string} path */
function isThere(path) {
  try {
    return statSync(path).isFile;
  } catch {
    return false;
  }
}

// Deno.serve, while the function is loaded: no port is opened, its handler takes the HTTP events.

/** @type {Application | null} */
let served = null;
const { promise: serving, resolve: tellServed } = Promise.withResolvers();

/** Deno.serve's three forms. @param {any} first @param {any} [second] */
function capture(first, second) {
  const options = typeof first === "function" ? {} : first ?? {};
  const fetch = typeof first === "function" ? first : second ?? options.handler;
  if (typeof fetch !== "function") throw new TypeError("Deno.serve was given no handler");
  if (served) {
    throw new RuntimeError(
      "Runtime.ServedTwice",
      "Deno.serve was called twice: on Lambda one handler takes all requests",
    );
  }
  served = { fetch, onError: options.onError };
  const server = new Server(options);
  if (options.onListen) queueMicrotask(options.onListen.bind(options, server.addr));
  // What waits for the server's end, as `await app.listen()` does, is never over: load no longer.
  setTimeout(tellServed, 0);
  return server;
}

/** What Deno.serve gives back. */
class Server {
  #end = Promise.withResolvers();

  /** @param {{ hostname?: string, port?: number, signal?: AbortSignal }} options */
  constructor({ hostname = "0.0.0.0", port = 8000, signal }) {
    this.addr = { transport: "tcp", hostname, port };
    this.finished = this.#end.promise;
    signal?.addEventListener("abort", this.shutdown.bind(this));
  }

  ref() {}

  unref() {}

  shutdown() {
    this.#end.resolve(undefined);
    return Promise.resolve();
  }

  [Symbol.asyncDispose]() {
    return this.shutdown();
  }
}

/** Waits for a function that calls Deno.serve after its module was loaded, while anything goes on in it. */
async function lateServe() {
  const timer = setTimeout(tellServed, SERVE_TIME);
  Deno.unrefTimer(timer);
  whenEmpty = tellServed;
  await serving;
  whenEmpty = null;
  clearTimeout(timer);
  return served;
}

/** The global of Lambda's Node runtime. */
const awslambda = {
  /** @param {any} handler @param {{ highWaterMark?: number }} [options] */
  streamifyResponse(handler, options) {
    handler[STREAMING] = "response";
    if (options?.highWaterMark !== undefined) handler[HIGH_WATER_MARK] = options.highWaterMark;
    return handler;
  },
  HttpResponseStream: {
    /** @param {any} stream @param {object} prelude statusCode, headers, cookies */
    from(stream, prelude) {
      stream.setContentType(PRELUDE);
      stream.prelude = prelude;
      return stream;
    },
  },
};

/**
 * What V8 says of a module that it cannot take, to which Deno adds the place; any other SyntaxError
 * is the function's own, of JSON.parse for example.
 * @param {SyntaxError} error
 */
function notJavaScript(error) {
  const { message } = error;
  if (!/ at \S+:\d+:\d+$/.test(message)) return error;
  const type = message.includes("does not provide an export named")
    ? "Runtime.ImportModuleError"
    : "Runtime.UserCodeSyntaxError";
  return new RuntimeError(type, message, { cause: error });
}

/** @param {Error} cause */
function notPermitted(cause) {
  return new RuntimeError(
    "Runtime.PermissionDenied",
    `${
      cause.message.split(", run again")[0]
    }: the function's permissions leave it out (deno.permissions in lambdeno.toml)`,
    { cause },
  );
}

/** @param {string} path */
function fileUrl(path) {
  return "file://" + path.split("/").map(encodeURIComponent).join("/");
}

/** @type {((reason?: unknown) => void) | null} what an event loop with nothing left in it decides */
let whenEmpty = null;

addEventListener("beforeunload", (event) => {
  if (!whenEmpty) return;
  const decide = whenEmpty;
  whenEmpty = null;
  event.preventDefault();
  decide();
});

// --- One invocation ----------------------------------------------------------------------------

// What is the same for every invocation of this environment.
const environment = {
  functionName: env.get("AWS_LAMBDA_FUNCTION_NAME"),
  functionVersion: env.get("AWS_LAMBDA_FUNCTION_VERSION"),
  memoryLimitInMB: env.get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE"),
  logGroupName: env.get("AWS_LAMBDA_LOG_GROUP_NAME"),
  logStreamName: env.get("AWS_LAMBDA_LOG_STREAM_NAME"),
};
const SIGNAL_MARGIN = Number(env.get("LAMBDENO_SIGNAL_MARGIN") ?? 500); // ms

/** What the handler is told about its invocation; the same as in Lambda's Node runtime, and a signal. */
class Context {
  callbackWaitsForEmptyEventLoop = true;
  #deadline;
  /** @type {AbortSignal | undefined} */
  #signal;

  /** @param {Map<string, string>} headers @param {Callback} finish */
  constructor(headers, finish) {
    const deadline = this.#deadline = Number(headers.get("lambda-runtime-deadline-ms") ?? NaN);
    Object.assign(this, environment);
    this.awsRequestId = headers.get("lambda-runtime-aws-request-id");
    this.invokedFunctionArn = headers.get("lambda-runtime-invoked-function-arn");
    this.clientContext = parsed(headers.get("lambda-runtime-client-context"), "ClientContext");
    this.identity = parsed(headers.get("lambda-runtime-cognito-identity"), "CognitoIdentity");
    this.tenantId = headers.get("lambda-runtime-aws-tenant-id");
    this.xRayTraceId = headers.get("lambda-runtime-trace-id");
    this.getRemainingTimeInMillis = () => deadline - Date.now();
    /** @param {unknown} result */
    this.succeed = (result) => finish(null, result);
    /** @param {unknown} error */
    this.fail = (error) => finish(error ?? "handled");
    /** @param {unknown} error @param {unknown} result */
    this.done = (error, result) => finish(error, result);
  }

  /** Aborts shortly before the deadline, in time to answer; LAMBDENO_SIGNAL_MARGIN sets how long. */
  get signal() {
    return this.#signal ??= signalAt(this.#deadline - SIGNAL_MARGIN);
  }
}

/** @param {number} time NaN where there is none */
function signalAt(time) {
  if (Number.isNaN(time)) return new AbortController().signal;
  const left = time - Date.now();
  if (left > 0) return AbortSignal.timeout(left);
  return AbortSignal.abort(new DOMException("The invocation's time is over", "TimeoutError"));
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

/** @param {Received} received */
function eventOf({ body, isText }) {
  if (!isText) throw new RuntimeError("Runtime.UnmarshalError", "The event is not UTF-8");
  try {
    return parse(body);
  } catch (error) {
    const place = / at position \d+/.exec(String(error)) ?? ""; // the rest quotes the event
    throw new RuntimeError("Runtime.UnmarshalError", `The event is not JSON${place}`);
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

/**
 * What the handler makes of an event: the value that it returns or promises, or what it calls back
 * with. A function that is no async one, takes a context and returns nothing may call back until the
 * event loop is empty, as in Node's runtime.
 * @param {Loaded} loaded @param {unknown} event @param {Map<string, string>} headers @returns {Promise<unknown>}
 */
function outcome({ handler, web }, event, headers) {
  return new Promise((resolve, reject) => {
    let isSettled = false;
    /** @type {Callback} */
    const finish = (error, result) => {
      isSettled = true;
      if (error === null || error === undefined) resolve(result);
      else reject(error);
    };
    let hasCalled = false;
    /** @type {Callback} */
    const callback = (error, result) => {
      if (hasCalled || isSettled) return; // a late one: the loop may be another invocation's by now
      hasCalled = true;
      if (context.callbackWaitsForEmptyEventLoop) whenEmpty = () => finish(error, result);
      else finish(error, result);
    };
    const context = new Context(headers, finish);
    const takes = /** @type {Handler} */ (handler);
    const value = web?.takes(event) ? web.answer(event, context) : takes(event, context, callback);
    if (hasCalled) {
      Promise.resolve(value).catch(() => {}); // the first answer counts
    } else if (isThenable(value)) {
      whenEmpty = () => reject(neverSettled());
      value.then((result) => finish(null, result), (error) => {
        isSettled = true;
        reject(error);
      });
    } else if (value !== undefined || takes.length < 2) {
      resolve(value);
    } else {
      whenEmpty ??= () => resolve(undefined);
    }
  });
}

/**
 * The promise's outcome, or the error that it never settles, where the event loop is empty before.
 * @template T @param {Promise<T>} promise @returns {Promise<T>}
 */
function orNever(promise) {
  return new Promise((resolve, reject) => {
    whenEmpty = () => reject(neverSettled());
    promise.then(resolve, reject);
  });
}

function neverSettled() {
  return new RuntimeError(
    "Runtime.HandlerNeverSettled",
    "The handler waits for what can never come: its promise is pending and nothing is left that could settle it",
  );
}

/** @param {unknown} value @returns {value is PromiseLike<unknown>} */
function isThenable(value) {
  return typeof value === "object" && value !== null &&
    typeof Reflect.get(value, "then") === "function";
}

let isHandling = false;

/** The next message, where it was asked for while a response was streamed. @type {Promise<Received | null> | null} */
let coming = null;

/** Where the running invocation's stream goes, where it has one. @type {import("./streaming.js").Outlet | null} */
let outlet = null;

/** @param {Wire} wire @param {Loaded} loaded @param {Received} received */
async function answer(wire, loaded, received) {
  const { headers } = received;
  request = {
    id: headers.get("lambda-runtime-aws-request-id"),
    tenantId: headers.get("lambda-runtime-aws-tenant-id"),
  };
  let result;
  isHandling = true;
  whenEmpty = null;
  try {
    setTraceId(headers.get("lambda-runtime-trace-id"));
    const event = eventOf(received);
    if (loaded.rest && !loaded.web?.isHttp(event)) await restOf(loaded);
    let value = await outcome(loaded, event, headers);
    if (isBody(value)) value = await orNever(bodyOf(value, event));
    if (value instanceof Streamed) return await stream(wire, value);
    result = resultOf(value);
  } catch (thrown) {
    if (isEnding) return;
    logThrown("Invoke Error", thrown);
    await (outlet ? outlet.fail(thrown) : sendError(wire, thrown));
    return;
  } finally {
    isHandling = false;
    whenEmpty = null;
    outlet = null;
  }
  if (!isEnding) wire.sendResult(result);
}

/** Whether a handler has answered with the web's or a generator's means. @param {unknown} value */
function isBody(value) {
  if (typeof value !== "object" || value === null) return false;
  return Symbol.asyncIterator in value ||
    Object.prototype.toString.call(value) === "[object Response]";
}

/** @param {any} value @param {unknown} event */
async function bodyOf(value, event) {
  if (Symbol.asyncIterator in value) return new Streamed(value);
  const { resultOfResponse } = await webModule();
  return resultOfResponse(value, event, env.get("LAMBDENO_INVOKE_MODE"), tools);
}

/** @param {Wire} wire @param {Streamed} streamed */
async function stream(wire, streamed) {
  const { Outlet } = await streamModule();
  outlet = new Outlet(wire, streamed, tools);
  coming = wire.receive(); // "nobody reads it", or else the next event
  wire.keepAlive(false); // what waits for a message is nothing that could go on with the stream
  try {
    await orNever(outlet.send(streamed.body, coming));
  } finally {
    wire.keepAlive(true);
  }
}

// --- The bridge's life -------------------------------------------------------------------------

/** Since it has said its last word, or is about to. */
let isEnding = false;

let isShuttingDown = false;

/** @param {number} status */
function end(status) {
  isEnding = true;
  exit(status);
}

/**
 * What nobody has caught: the running invocation, or the start, fails with it, and this process ends
 * since nothing is known of its state; exit statuses as in Node's runtime.
 * @param {Promise<Wire>} wire @param {{ what: string, type: string, status: number }} fault @param {unknown} cause
 */
async function fail(wire, { what, type, status }, cause) {
  logThrown(what, cause);
  if (isEnding) return;
  const isExpected = isHandling || !isLoaded;
  isEnding = true;
  try {
    const there = await wire;
    if (isExpected) {
      const error = uncaughtError(type, what, cause);
      const last = { status: "501 Last" };
      await (outlet ? outlet.fail(error, last) : sendError(there, error, last));
    }
    await there.flushed(); // a result that was on its way
  } finally {
    end(status);
  }
}

/** An error under a type of ours, with the place of what caused it. @param {string} type @param {string} what @param {unknown} cause */
function uncaughtError(type, what, cause) {
  const error = new RuntimeError(type, what, { cause });
  try {
    if (!isError(cause)) {
      error.message = `${what}: ${cause}`;
      return error;
    }
    error.message = `${what}: ${cause.name}: ${cause.message}`;
    error.stack = [`${type}: ${error.message}`, ...stackOf(cause).slice(1)].join("\n");
  } catch { /* what it is cannot be read */ }
  return error;
}

const REJECTION = {
  what: "Unhandled Promise Rejection",
  type: "Runtime.UnhandledPromiseRejection",
  status: 128,
};
const EXCEPTION = { what: "Uncaught Exception", type: "Runtime.UncaughtException", status: 129 };
let isLoaded = false;

/**
 * Has uncaught errors fail their invocation, unless the function has a listener that deals with them.
 * @param {Promise<Wire>} wire
 */
function watch(wire) {
  addEventListener("unhandledrejection", (event) => {
    /** @type {(process: EventEmitter) => void} */
    const emit = (process) => process.emit("unhandledRejection", event.reason, event.promise);
    uncaught(event, "unhandledRejection", emit, () => fail(wire, REJECTION, event.reason));
  });
  addEventListener("error", (event) => {
    const thrown = event.error ?? event.message;
    /** @type {(process: EventEmitter) => void} */
    const emit = (process) => process.emit("uncaughtException", thrown, "uncaughtException");
    uncaught(event, "uncaughtException", emit, () => fail(wire, EXCEPTION, thrown));
  });
  addEventListener("unload", () => {
    if (isEnding) return;
    if (bridge && !bridge.logInStream) bridge.send("102 Exit", "", ""); // not any other end
    const { stack } = new Error();
    const where = String(stack).split("\n").slice(1).filter((line) =>
      line.includes("file://") && !line.includes(BRIDGE)
    );
    if (where.length) logValues(ERROR, [["Deno.exit was called", ...where].join("\n")]);
  });
}

/** @typedef {{ listenerCount: (name: string) => number, emit: (...values: unknown[]) => void }} EventEmitter */

/**
 * @param {Event} event @param {string} name Node's, of the same
 * @param {(process: EventEmitter) => void} emit @param {() => void} fail
 */
function uncaught(event, name, emit, fail) {
  let isHandled = false;
  event.preventDefault(); // or else Deno would end before anything could be sent
  event.preventDefault = () => void (isHandled = true); // a later listener's
  queueMicrotask(() => {
    if (isHandled) return;
    const { process } = /** @type {{ process?: EventEmitter }} */ (globalThis);
    if (!process?.listenerCount(name)) return fail();
    try {
      emit(process);
    } catch { // what listens for errors fails itself
      fail();
    }
  });
}

/** Calls the function's own hook, once. @param {unknown} hook */
async function shutDown(hook) {
  if (isEnding || isShuttingDown) return;
  isShuttingDown = true;
  try {
    if (typeof hook === "function") await hook();
  } catch (thrown) {
    logThrown("Shutdown Error", thrown);
  }
  end(0);
}

async function main() {
  const path = env.get("LAMBDENO_SOCKET");
  isFramed = env.get("LAMBDENO_LOGS") === "frames";
  env.delete("LAMBDENO_SOCKET");
  env.delete("LAMBDENO_LOGS");
  const template = env.get("DENO_PREFIX");
  if (template !== undefined) setPrefix(template);
  if (!/^(1|true)$/.test(env.get("AWS_LAMBDA_NODEJS_NO_GLOBAL_AWSLAMBDA") ?? "")) {
    Reflect.set(globalThis, "awslambda", awslambda);
  }
  let asksForSigterm = false; // process.on of Node comes here too; to look there takes 10 ms
  Deno.addSignalListener = (signal, listener) => {
    asksForSigterm ||= signal === "SIGTERM";
    addSignalListener(signal, listener);
  };
  const connecting = (path ? socketAt(path) : Promise.resolve(standardStreams())).then(connected);
  watch(connecting);
  patchConsole();
  if (isFramed) await connecting; // before the function's first word
  /** @type {unknown} */
  let failure;
  const loading = loadFunction().catch((thrown) => void (failure = thrown));
  const wire = await connecting;
  const loaded = await loading;
  if (!loaded) {
    if (isEnding) return;
    logThrown("Init Error", failure);
    isEnding = true;
    await sendError(wire, failure, { otherwise: "Function.InitError" });
    return end(1);
  }
  const { shutdown } = loaded;
  Deno.addSignalListener = addSignalListener;
  if (typeof shutdown === "function") {
    asksForSigterm = true;
    addSignalListener("SIGTERM", () => shutDown(shutdown));
  }
  isLoaded = true;
  wire.send("200 OK", asksForSigterm ? "Shutdown: yes\r\n" : "", "");
  for (let received; (received = await (coming ?? wire.receive()));) {
    coming = null;
    if (received.isCancel) continue; // of a stream that was over already
    await answer(wire, loaded, received);
    if (isEnding) return;
  }
  if (path) end(0); // the bootstrap is gone
  await shutDown(shutdown); // runtime2 is done with this process: what is open ends here
}

main();
