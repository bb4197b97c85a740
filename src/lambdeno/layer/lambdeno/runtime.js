// The bridge: HTTP requests of the bootstrap on one side, the function's handler on the other.
//
//   connect -> load the function -> say that it is loaded, or why not -> POST /invocation, for ever
//
// Each request has a number in its path, which its answer has as the reason phrase. The first message
// answers no request, and has "load" there.
//
// One connection, one request at a time: a Unix socket (runtime1) or the standard streams (runtime2,
// where the bootstrap ends the process after the first). Raw HTTP/1.1 and no import: Deno.serve
// starts 3 to 5 ms later (docs/decisions.md), and what is not loaded cannot be slow. web.js and
// streaming.js are loaded for functions that need them.

// --- Primordials -------------------------------------------------------------------------------
//
// What the bridge uses, as it was before the function could change it, under the names that Node has
// for it. The connection's methods are bound before the function is loaded, too. Safe as they are:
// `await`, literals, indices, the length of arrays and text. Not safe: iteration, spread arrays, array
// patterns, methods, `instanceof`, a typed array's length.

/** A method as a function of what it is called on. @type {(method: any) => (on: any, ...values: any[]) => any} */
const uncurryThis = Function.prototype.bind.bind(Function.prototype.call);
const global = globalThis;
const deno = Deno;
const { addSignalListener, exit, statSync, stdin, stdout, unrefTimer } = deno;
const { get: getVariable, set: setVariable, delete: deleteVariable } = deno.env;
const { NotCapable } = deno.errors;
const {
  AbortController,
  AbortSignal,
  AggregateError,
  ArrayBuffer,
  BigInt,
  DOMException,
  DataView,
  Date,
  Error,
  Number,
} = global;
const { Promise, String, SyntaxError, TypeError, Uint8Array } = global;
const { addEventListener, encodeURIComponent, queueMicrotask } = global;
const { parse, stringify } = JSON;
const { assign, keys } = Object;
const { isArray } = Array;
const {
  defineProperty,
  deleteProperty,
  get: getProperty,
  getOwnPropertyDescriptor,
  getPrototypeOf,
  set: setProperty,
  setPrototypeOf,
} = Reflect;
const { now: currentTime } = Date;
const { asyncIterator } = Symbol;
const withResolvers = Promise.withResolvers.bind(Promise);
/** @param {object} prototype @param {string} name */
const uncurryGetter = (prototype, name) =>
  uncurryThis(getOwnPropertyDescriptor(prototype, name)?.get);
const TypedArrayPrototype = Object(getPrototypeOf(Uint8Array.prototype));
const DataViewPrototypeSetBigUint64 = uncurryThis(DataView.prototype.setBigUint64);
const DataViewPrototypeSetUint32 = uncurryThis(DataView.prototype.setUint32);
const DatePrototypeToISOString = uncurryThis(Date.prototype.toISOString);
const ErrorEventPrototypeGetError = uncurryGetter(ErrorEvent.prototype, "error");
const ErrorEventPrototypeGetMessage = uncurryGetter(ErrorEvent.prototype, "message");
const EventPrototypePreventDefault = uncurryThis(Event.prototype.preventDefault);
const FunctionPrototypeBind = uncurryThis(Function.prototype.bind);
const ObjectPrototypeIsPrototypeOf = uncurryThis(Object.prototype.isPrototypeOf);
const ObjectPrototypeToString = uncurryThis(Object.prototype.toString);
const RejectionEventPrototypeGetPromise = uncurryGetter(PromiseRejectionEvent.prototype, "promise");
const RejectionEventPrototypeGetReason = uncurryGetter(PromiseRejectionEvent.prototype, "reason");
const RegExpPrototypeExec = uncurryThis(RegExp.prototype.exec);
const StringPrototypeCharCodeAt = uncurryThis(String.prototype.charCodeAt);
const StringPrototypeIncludes = uncurryThis(String.prototype.includes);
const StringPrototypeIndexOf = uncurryThis(String.prototype.indexOf);
const StringPrototypeReplaceAll = uncurryThis(String.prototype.replaceAll);
const StringPrototypeSlice = uncurryThis(String.prototype.slice);
const StringPrototypeSplit = uncurryThis(String.prototype.split);
const StringPrototypeStartsWith = uncurryThis(String.prototype.startsWith);
const StringPrototypeToLowerCase = uncurryThis(String.prototype.toLowerCase);
const StringPrototypeTrim = uncurryThis(String.prototype.trim);
const TypedArrayPrototypeGetBuffer = uncurryGetter(TypedArrayPrototype, "buffer");
const TypedArrayPrototypeGetByteOffset = uncurryGetter(TypedArrayPrototype, "byteOffset");
const TypedArrayPrototypeGetLength = uncurryGetter(TypedArrayPrototype, "length");
const TypedArrayPrototypeSet = uncurryThis(TypedArrayPrototype.set);
const encoder = new TextEncoder();
/** @type {(text: string) => Uint8Array} */
const encode = encoder.encode.bind(encoder);
const encodeInto = encoder.encodeInto.bind(encoder);
const decoder = new TextDecoder();
const decode = decoder.decode.bind(decoder);
const strictDecoder = new TextDecoder("utf-8", { fatal: true });
const decodeStrictly = strictDecoder.decode.bind(strictDecoder);
const writeOutput = stdout.writeSync.bind(stdout);
const { Console, inspectArgs } = internals();

/** As TypedArray.prototype.subarray, without its species. @param {Uint8Array} bytes @param {number} start @param {number} [end] */
function subarray(bytes, start, end = TypedArrayPrototypeGetLength(bytes)) {
  const at = TypedArrayPrototypeGetByteOffset(bytes) + start;
  return new Uint8Array(TypedArrayPrototypeGetBuffer(bytes), at, end - start);
}

// Deno makes its timers when they are first asked for, which takes 6 ms: who asks is bound, not what it gives.
const makeSetTimeout = getOwnPropertyDescriptor(global, "setTimeout")?.get ?? (() => setTimeout);
const makeClearTimeout = getOwnPropertyDescriptor(global, "clearTimeout")?.get ??
  (() => clearTimeout);

/** As setTimeout. @param {(value?: any) => void} callback @param {number} ms @returns {any} */
function startTimer(callback, ms) {
  return makeSetTimeout()(callback, ms);
}

/** As clearTimeout. @param {any} timer */
function stopTimer(timer) {
  makeClearTimeout()(timer);
}

/** As `instanceof`. @param {{ prototype: object }} type @param {unknown} value */
function isA({ prototype }, value) {
  return ObjectPrototypeIsPrototypeOf(prototype, value);
}

/**
 * As Promise.prototype.then, of a promise or a thenable; gives nothing.
 * @template T
 * @param {PromiseLike<T>} promise @param {(value: T) => void} fulfilled @param {(error: unknown) => void} rejected
 */
async function then(promise, fulfilled, rejected) {
  let value;
  try {
    value = await promise;
  } catch (error) {
    return rejected(error);
  }
  fulfilled(value);
}

/**
 * As Promise.race, of two.
 * @template T @template U
 * @param {PromiseLike<T>} one @param {PromiseLike<U>} other @returns {Promise<T | U>}
 */
function race(one, other) {
  return new Promise((resolve, reject) => {
    then(one, resolve, reject);
    then(other, resolve, reject);
  });
}

/** What web.js and streaming.js use of these; they may be loaded after the function. */
const primordials = {
  ArrayBuffer,
  NumberPrototypeToString: uncurryThis(Number.prototype.toString),
  Promise,
  RegExpPrototypeExec,
  StringPrototypeSlice,
  TypedArrayPrototypeGetLength,
  TypedArrayPrototypeSet,
  Uint8Array,
  Uint8ArrayPrototypeToBase64: uncurryThis(Uint8Array.prototype.toBase64),
  encode,
  isA,
  isView: ArrayBuffer.isView,
  parse,
  race,
  startTimer,
  stringify,
  then,
  withResolvers,
};

const ERROR_TYPE = "application/vnd.aws.lambda.error+json";
const SMALL = 64 * 1024; // bytes: messages up to here need no buffer of their own
const ATOMIC = 16 * 1024; // bytes that a Unix socket takes as a whole or not at all
const MOST_LOGS = 100; // events of one turn
const PIPE_BUF = 4096; // bytes that the kernel writes to a pipe in one piece
const MARK = 32; // bytes
const DIGITS = 8; // of a result's Content-Length: Lambda takes 6291556 bytes
const NUMBER = 16; // characters of a request's number
const PATH = "POST /invocation/".length; // where it is
const STATUS = "HTTP/1.1 200 "; // before it, in a result
const HERE = encode("HTTP/1.1 102 Here\r\nContent-Length: 0\r\n\r\n");
const RESULT_HEAD = encode(
  `${STATUS}${" ".repeat(NUMBER)}\r\nContent-Type: application/json\r\nContent-Length: ${
    " ".repeat(DIGITS)
  }\r\n\r\n`,
);
const RESULT_HEAD_SIZE = RESULT_HEAD.length;

/**
 * What formats console's arguments. The way to Deno's internals is closed behind it: there, a
 * function would find the bridge's connection.
 */
function internals() {
  const all = Object(getProperty(deno, getProperty(deno, "internal")));
  deleteProperty(deno, getProperty(deno, "internal"));
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
 * @typedef {{ number: string, headers: Headers, body: string, isText: boolean, isCancel: boolean }} Received
 */
/** @typedef {Record<string, string | undefined>} Headers names in lower case */

/**
 * What the bridge needs of a connection; ``writeSync`` where it has that, else ``write``.
 * @typedef {{
 *   read: (into: Uint8Array) => Promise<number | null>,
 *   write: (bytes: Uint8Array) => Promise<number>,
 *   writeSync?: (bytes: Uint8Array) => number,
 *   keepAlive?: (wanted: boolean) => void,
 * }} Connection
 */

/** A buffer with its size: what a function might have changed is not asked for. */
class Room {
  #buffer;

  /** @param {number} size */
  constructor(size) {
    this.size = size;
    this.#buffer = new ArrayBuffer(size);
    this.bytes = new Uint8Array(this.#buffer);
    this.number = this.part(PATH, PATH + NUMBER); // where a request has it
  }

  /** @param {number} start @param {number} [end] */
  part(start, end = this.size) {
    return new Uint8Array(this.#buffer, start, end - start);
  }

  /** @param {number} size @param {number} used */
  grown(size, used) {
    const larger = new Room(size);
    TypedArrayPrototypeSet(larger.bytes, this.part(0, used));
    return larger;
  }
}

class Wire {
  #connection;
  #input = new Room(SMALL);
  #output = new Room(RESULT_HEAD_SIZE + SMALL);
  /** @type {Promise<void> | null} what is being written piece by piece */
  #writing = null;
  #logs = 0; // log events that may not yet be in the kernel
  #logBytes = 0;
  /** @type {((event: Uint8Array) => Promise<void>) | null} sends a log event in the middle of a stream */
  logInStream = null;
  number = "load"; // of the request that is answered next

  /** @param {Connection} connection */
  constructor(connection) {
    this.#connection = connection;
    this.keepAlive = connection.keepAlive ?? ignore;
    TypedArrayPrototypeSet(this.#output.bytes, RESULT_HEAD);
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
      if (have === this.#input.size) this.#input = this.#input.grown(2 * have, have);
      const got = await this.#connection.read(have ? this.#input.part(have) : this.#input.bytes);
      if (got === null) return null;
      have += got;
      if (have <= SMALL) {
        text = decode(this.#input.part(0, have));
        const end = StringPrototypeIndexOf(text, "\r\n\r\n");
        if (end < 0) continue;
        const headers = headersOf(StringPrototypeSlice(text, 0, end));
        if (text.length === have && have === end + 4 + lengthIn(headers)) { // a byte for each unit
          const isText = !StringPrototypeIncludes(text, "\ufffd");
          return received(text, headers, StringPrototypeSlice(text, end + 4), isText);
        }
      }
      start = endOfHead(this.#input.bytes, have);
    }
    const head = decode(this.#input.part(0, start));
    const headers = headersOf(StringPrototypeSlice(head, 0, -4));
    const total = start + lengthIn(headers);
    if (total > this.#input.size) this.#input = this.#input.grown(total, have);
    while (have < total) {
      const got = await this.#connection.read(this.#input.part(have, total));
      if (got === null) return null;
      have += got;
    }
    const bytes = this.#input.part(start, total);
    const body = decode(bytes);
    const isText = !StringPrototypeIncludes(body, "\ufffd") || isUtf8(bytes);
    return received(head, headers, body, isText);
  }

  /** Sends a handler's result. @param {string} json */
  sendResult(json) {
    const head = RESULT_HEAD_SIZE;
    if (head + json.length * 3 > this.#output.size) { // UTF-8 has at most 3 bytes for a UTF-16 unit
      // Room for text of ASCII, and some more; what is kept is not mapped page by page each time.
      const room = head + json.length + SMALL;
      if (room > this.#output.size) this.#output = this.#output.grown(room, head);
    }
    const output = this.#output;
    const { read, written } = encodeInto(json, output.part(head));
    if (read < json.length || written >= 10 ** DIGITS) {
      return this.send(`200 ${this.number}`, "Content-Type: application/json\r\n", json);
    }
    const { bytes } = output;
    TypedArrayPrototypeSet(bytes, this.#input.number, STATUS.length);
    let rest = written;
    for (let at = head - 5; at > head - 5 - DIGITS; at--, rest = rest / 10 | 0) {
      bytes[at] = rest || rest === written ? 48 + rest % 10 : 32; // a space before the first digit
    }
    this.write(output.part(0, head + written));
  }

  /**
   * Sends any response; resolves when it is in the kernel's hands.
   * @param {string} status
   * @param {string} headers lines, each with its CRLF
   * @param {string | Uint8Array} content
   */
  send(status, headers, content) {
    const body = typeof content === "string" ? encode(content) : content;
    const bodySize = TypedArrayPrototypeGetLength(body);
    const head = encode(`HTTP/1.1 ${status}\r\n${headers}Content-Length: ${bodySize}\r\n\r\n`);
    const headSize = TypedArrayPrototypeGetLength(head);
    if (headSize + bodySize > ATOMIC) return this.write(head, body);
    const message = new Uint8Array(headSize + bodySize);
    TypedArrayPrototypeSet(message, head);
    TypedArrayPrototypeSet(message, body, headSize);
    return this.write(message);
  }

  /**
   * Sends a whole log event, unless it might not be in the kernel when this returns: what is logged
   * right before this process ends must not be lost. Deno starts 128 operations a turn at once.
   * @param {Uint8Array} event
   */
  sendLog(event) {
    const size = TypedArrayPrototypeGetLength(event);
    if (!this.#connection.writeSync) {
      if (this.#writing || size > ATOMIC / 2) return false;
      if (this.#logs === MOST_LOGS || this.#logBytes + size > SMALL) return false;
    }
    this.#logs++;
    this.#logBytes += size;
    const sending = this.logInStream ? this.logInStream(event) : this.send("103 Log", "", event);
    const sent = () => {
      this.#logs--;
      this.#logBytes -= size;
    };
    then(sending, sent, sent);
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
  async write(...parts) {
    const { writeSync } = this.#connection;
    if (writeSync) {
      for (let i = 0; i < parts.length; i++) {
        let rest = parts[i];
        while (TypedArrayPrototypeGetLength(rest)) rest = subarray(rest, writeSync(rest));
      }
      return;
    }
    const before = this.#writing;
    if (!before && parts.length === 1 && TypedArrayPrototypeGetLength(parts[0]) <= ATOMIC) {
      try {
        await this.#connection.write(parts[0]);
      } catch { /* receive() gives null */ }
      return;
    }
    if (before) { // the output buffer will have been used again
      for (let i = 0; i < parts.length; i++) parts[i] = new Uint8Array(parts[i]);
    }
    const writing = this.#writing = this.#writeAll(parts, before);
    await writing;
    if (this.#writing === writing) this.#writing = null;
  }

  /** Resolves when nothing is on its way. */
  async flushed() {
    await this.#writing;
  }

  /** @param {Uint8Array[]} parts @param {Promise<void> | null} before what is written first */
  async #writeAll(parts, before) {
    if (before) await before;
    try {
      for (let i = 0; i < parts.length; i++) {
        let rest = parts[i];
        while (TypedArrayPrototypeGetLength(rest)) {
          rest = subarray(rest, await this.#connection.write(rest));
        }
      }
    } catch { /* receive() gives null */ }
  }
}

/** @param {string} head @param {Headers} headers @param {string} body @param {boolean} isText @returns {Received} */
function received(head, headers, body, isText) {
  const number = StringPrototypeSlice(head, PATH, PATH + NUMBER);
  return { number, headers, body, isText, isCancel: head[0] === "D" };
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
  const read = stdin.read.bind(stdin);
  const refer = stdinMethod("REF");
  const unrefer = stdinMethod("UNREF");
  for (let have = 0; have < MARK;) have += stdin.readSync(frame.subarray(have, MARK)) ?? exit(0);
  return {
    read,
    write: () => Promise.resolve(0), // never asked
    writeSync: (bytes) => {
      const all = TypedArrayPrototypeGetLength(bytes);
      const size = all < PIPE_BUF - head ? all : PIPE_BUF - head - 1;
      for (let at = MARK + 3, rest = size; at >= MARK; at--, rest >>= 4) {
        frame[at] = StringPrototypeCharCodeAt("0123456789abcdef", rest & 15);
      }
      TypedArrayPrototypeSet(frame, size < all ? subarray(bytes, 0, size) : bytes, head);
      frame[head + size] = 10;
      try {
        writeOutput(subarray(frame, 0, head + size + 1));
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
  const connection = await deno.connect({ transport: "unix", path });
  const ref = connection.ref.bind(connection);
  const unref = connection.unref.bind(connection);
  return {
    read: connection.read.bind(connection),
    write: connection.write.bind(connection),
    keepAlive: (wanted) => wanted ? ref() : unref(),
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
  bridge.write(HERE);
  return bridge;
}

function ignore() {}

/** @param {Headers} headers */
function lengthIn(headers) {
  return Number(headers["content-length"] ?? 0);
}

/** Inherits nothing, and V8 makes no dictionary of it, as it does of `{ __proto__: null }`: 0.6 us an invocation. */
class NullObject {}
setPrototypeOf(NullObject.prototype, null);

/** @param {string} head without its empty line @returns {Headers} */
function headersOf(head) {
  const headers = /** @type {Headers} */ (new NullObject());
  let name = "";
  const lines = StringPrototypeSplit(head, "\r\n");
  for (let i = 1; i < lines.length; i++) {
    const line = lines[i];
    if (line[0] === " " || line[0] === "\t") { // it goes on (RFC 9112, 5.2)
      headers[name] = StringPrototypeTrim(`${headers[name]} ${StringPrototypeTrim(line)}`);
      continue;
    }
    const colon = StringPrototypeIndexOf(line, ":");
    name = StringPrototypeToLowerCase(StringPrototypeSlice(line, 0, colon));
    headers[name] = StringPrototypeTrim(StringPrototypeSlice(line, colon + 1));
  }
  return headers;
}

/** @param {Uint8Array} bytes */
function isUtf8(bytes) {
  try {
    decodeStrictly(bytes);
    return true;
  } catch {
    return false;
  }
}

/** Where the body begins, or -1. @param {Uint8Array} bytes @param {number} have */
function endOfHead(bytes, have) {
  for (let at = 0; at + 3 < have; at++) {
    if (bytes[at] !== 13) continue;
    if (bytes[at + 1] === 10 && bytes[at + 2] === 13 && bytes[at + 3] === 10) return at + 4;
  }
  return -1;
}

// --- Logs --------------------------------------------------------------------------------------

const LEVELS = ["TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL"];
const [TRACE, DEBUG, INFO, WARN, ERROR, FATAL] = LEVELS.keys();
const CONSOLE_LEVELS = [DEBUG, INFO, WARN, ERROR]; // as Deno's Console numbers them
const isJson = getVariable("AWS_LAMBDA_LOG_FORMAT") === "JSON";
const least = LEVELS.indexOf((getVariable("AWS_LAMBDA_LOG_LEVEL") ?? "").toUpperCase());

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
  return DatePrototypeToISOString(new Date());
}

/** @param {number} level @param {string} text */
function writeLog(level, text) {
  if (isFramed && bridge?.sendLog(logEvent(level, encode(text)))) return;
  // One event is one line: Lambda's console shows a carriage return as a new one.
  let rest = encode(StringPrototypeReplaceAll(text, "\n", "\r") + "\n");
  try {
    while (TypedArrayPrototypeGetLength(rest)) rest = subarray(rest, writeOutput(rest));
  } catch { /* the function has closed its standard output */ }
}

/**
 * A frame of Lambda's telemetry descriptor: type, length, microseconds, text; big-endian.
 * https://github.com/aws/aws-lambda-nodejs-runtime-interface-client/blob/main/src/LogPatch.js
 * @param {number} level @param {Uint8Array} text
 */
function logEvent(level, text) {
  const size = TypedArrayPrototypeGetLength(text);
  const event = new Uint8Array(16 + size);
  const view = new DataView(TypedArrayPrototypeGetBuffer(event));
  DataViewPrototypeSetUint32(view, 0, (isJson ? 0xa55a0002 : 0xa55a0003) | 4 * (level + 1));
  DataViewPrototypeSetUint32(view, 4, size);
  DataViewPrototypeSetBigUint64(view, 8, BigInt(currentTime()) * 1000n);
  TypedArrayPrototypeSet(event, text, 16);
  return event;
}

/** @param {number} level @param {unknown[]} values what a call of console was given */
function logValues(level, values) {
  if (level < least) return;
  if (!isJson) return logText(level, inspectArgs(values));
  const first = values[0];
  if (values.length !== 1) {
    let error;
    for (let i = 0; !error && i < values.length; i++) if (isError(values[i])) error = values[i];
    const { errorType, errorMessage, stackTrace } = error
      ? detailed(/** @type {ErrorLike} */ (error), "stackTrace")
      : {};
    return logRecord(level, { message: inspectArgs(values), errorType, errorMessage, stackTrace });
  }
  const isFormless = first === undefined || typeof first === "symbol" || // in JSON
    typeof first === "function";
  const message = isFormless ? inspectArgs(values) : first;
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
      const lines = StringPrototypeSplit(new Error().stack, "\n");
      let text = `Trace: ${inspectArgs(values)}`;
      for (let i = 2; i < lines.length; i++) text += `\n${lines[i]}`;
      logValues(TRACE, [text]);
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

const STACK_LINE = /^\s*at (?:async )?(?:(.+) \()?(?:file:\/\/)?(.+?):(\d+):\d+\)?$/;

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
  if (isA(Error, value)) return true;
  return typeof value === "object" && value !== null && "message" in value && "stack" in value &&
    "name" in value;
}

/** The lines of an error's stack, without the bridge's own. @param {ErrorLike} error */
function stackOf(error) {
  const lines = StringPrototypeSplit(String(error.stack ?? ""), "\n");
  /** @type {string[]} */
  const kept = [];
  let isFirst = true;
  for (let i = 0; i < lines.length; i++) {
    if (!StringPrototypeIncludes(lines[i], BRIDGE)) kept[kept.length] = lines[i];
    else if (isFirst) {
      isFirst = false;
      if (kept.length > 1 && lines[i - 1] === "    at new Promise (<anonymous>)") kept.length--;
    }
  }
  return kept;
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
  if (isA(AggregateError, error) && isArray(error.errors)) {
    const { errors } = /** @type {{ errors: unknown[] }} */ (error);
    /** @type {(T | typeof UNREADABLE)[]} */
    const all = found.errors = [];
    for (let i = 0; i < errors.length && bounds.left > 0; i++) {
      all[i] = shown(errors[i], show, bounds);
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

/** @type {Record<string, boolean>} */
const SHOWN_APART = /** @type {any} */ ({
  __proto__: null,
  cause: true,
  errors: true,
  name: true,
  message: true,
  stack: true,
});

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
    const own = keys(error);
    for (let i = 0; i < own.length; i++) {
      const key = own[i];
      if (SHOWN_APART[key]) continue;
      const value = getProperty(error, key);
      found[key] = bounds.left > 0 ? show(value) : plain(value);
    }
    found[stackKey] = stackOf(error);
    assign(found, related(error, show, bounds));
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
function sendError(wire, thrown, { otherwise = "Function.Unhandled", status = "500" } = {}) {
  const { error, body, type } = errorOf(thrown, otherwise);
  const cause = xRayCause(error);
  let headers = `Content-Type: ${ERROR_TYPE}\r\nLambda-Runtime-Function-Error-Type: ${type}\r\n`;
  if (cause) headers += `Lambda-Runtime-Function-XRay-Error-Cause: ${cause}\r\n`;
  return wire.send(`${status} ${wire.number}`, headers, body);
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
  if (matches(/^(Runtime|Function)\.[A-Z][a-zA-Z]+$/, name)) return name;
  return otherwise === "Function.Unhandled" && matches(/^[A-Z][a-zA-Z]+$/, name)
    ? `Function.${name}`
    : otherwise;
}

/** As RegExp.prototype.test. @param {RegExp} pattern @param {string} text */
function matches(pattern, text) {
  return RegExpPrototypeExec(pattern, text) !== null;
}

/**
 * The error as X-Ray shows it, in the characters of a header; none where it is too large.
 * https://docs.aws.amazon.com/xray/latest/devguide/xray-api-segmentdocuments.html
 * @param {Described} error
 */
function xRayCause(error) {
  /** @type {object[]} */
  const exceptions = [];
  const paths = /** @type {any} */ ({ __proto__: null });
  for (let one = error; one; one = /** @type {Described} */ (one.cause)) {
    /** @type {object[]} */
    const stack = [];
    for (let i = 0; i < one.trace.length && stack.length < X_RAY.frames; i++) {
      const line = one.trace[i];
      if (line.length > X_RAY.line) continue;
      const { 1: label = "anonymous", 2: path, 3: row } = RegExpPrototypeExec(STACK_LINE, line) ??
        {};
      if (!path) continue;
      stack[stack.length] = { path, line: Number(row), label };
      paths[path] = true;
    }
    exceptions[exceptions.length] = {
      type: one.errorType,
      message: StringPrototypeSlice(one.errorMessage, 0, X_RAY.message),
      stack,
    };
  }
  const json = stringify({ working_directory: taskRoot(), exceptions, paths: keys(paths) });
  let text = "";
  let start = 0;
  for (let at = 0; at < json.length; at++) {
    const unit = StringPrototypeCharCodeAt(json, at);
    if (unit >= 0x20 && unit <= 0x7e) continue;
    text += StringPrototypeSlice(json, start, at) + "\\u";
    for (let shift = 12; shift >= 0; shift -= 4) text += "0123456789abcdef"[unit >> shift & 15];
    start = at + 1;
  }
  text += StringPrototypeSlice(json, start);
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
const tools = { RuntimeError, Streamed, PRELUDE, errorOf, sendError, primordials };

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
  return import("node:" + "stream");
}

function taskRoot() {
  return getVariable("LAMBDA_TASK_ROOT") ?? "/var/task";
}

/**
 * What _HANDLER names: "function.handler" is the export "handler" of function.bundle.js in the task
 * root. The layer's own bundle answers where there is none.
 * @returns {Promise<Loaded>}
 */
async function loadFunction() {
  const name = getVariable("_HANDLER") ?? "";
  const [, file, path] = /^(?:\.\/)?([^.]+)\.(.+)$/.exec(name) ?? [];
  if (!file || name.includes("..")) {
    throw new RuntimeError(
      "Runtime.MalformedHandlerName",
      `The handler is "${name}"; it must be <file>.<export>, such as function.handler`,
    );
  }
  const serve = Object(getOwnPropertyDescriptor(deno, "serve"));
  deno.serve = /** @type {any} */ (capture);
  const importing = importModule(pathOf(file), file);
  const module = await race(importing, serving) ?? null;
  /** @type {Loaded} */
  const loaded = { handler: null, web: null, rest: null, shutdown: module?.shutdown };
  const { value, holder } = exportOf(module, path);
  let application = served ?? applicationIn(value) ?? applicationIn(module?.default);
  if (!application && value === undefined && path === DEFAULT_EXPORT) {
    application = await lateServe();
  }
  defineProperty(deno, "serve", serve);
  if (typeof value === "function") loaded.handler = await handlerOf(value, module, holder);
  else if (!application || (value === undefined && module && path !== DEFAULT_EXPORT)) {
    throw notFound(module, path, value);
  }
  if (application) {
    const { Web } = await webModule();
    loaded.web = new Web(application, getVariable("LAMBDENO_INVOKE_MODE"), !loaded.handler, tools);
    await loaded.web.warm();
    if (loaded.web.isStreaming) await streamModule();
  }
  if (!module) loaded.rest = loadRest(importing, loaded, path);
  return loaded;
}

/** Where the function's file is, were it a bundle. @param {string} file */
function pathOf(file) {
  return `${taskRoot()}/${file}.${getVariable("HANDLER_EXT") || "bundle.js"}`;
}

/**
 * What is exported under a path such as "orders.create". A class stands for an instance of it where
 * the next name is that of a method.
 * @param {Module | null} module @param {string} path
 */
function exportOf(module, path) {
  let holder = module;
  let value = module;
  const names = StringPrototypeSplit(path, ".");
  for (let i = 0; i < names.length; i++) {
    const key = names[i];
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
  const handler = holder === module ? value : FunctionPrototypeBind(value, holder);
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
  if (ObjectPrototypeToString(value) === "[object AsyncGeneratorFunction]") {
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
  const late = withResolvers();
  const timer = startTimer(late.resolve, REST_TIME);
  await race(/** @type {Promise<unknown>} */ (loaded.rest), late.promise);
  stopTimer(timer);
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
    const { code, message } = /** @type {Error & { code?: string }} */ (Object(error));
    if (isA(NotCapable, error)) throw notPermitted(/** @type {Error} */ (error));
    if (isA(SyntaxError, error)) throw notJavaScript(/** @type {SyntaxError} */ (error));
    // Deno has this code for syntax errors too.
    if (!isA(TypeError, error) || code !== "ERR_MODULE_NOT_FOUND") throw error;
    if (StringPrototypeStartsWith(message, `Module not found "${fileUrl(path)}"`)) {
      return await importOther(path, file);
    }
    if (StringPrototypeStartsWith(message, "SyntaxError: ")) {
      throw new RuntimeError(
        "Runtime.UserCodeSyntaxError",
        StringPrototypeSlice(message, "SyntaxError: ".length),
      );
    }
    if (matches(/^Requires \w+ access/, message)) {
      throw notPermitted(/** @type {Error} */ (error));
    }
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
const { promise: serving, resolve: tellServed } = withResolvers();

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
  if (options.onListen) queueMicrotask(() => options.onListen(server.addr));
  // What waits for the server's end, as `await app.listen()` does, is never over: load no longer.
  startTimer(tellServed, 0);
  return server;
}

/** What Deno.serve gives back. */
class Server {
  #end = withResolvers();

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
  const timer = startTimer(tellServed, SERVE_TIME);
  unrefTimer(timer);
  whenEmpty = tellServed;
  await serving;
  whenEmpty = null;
  stopTimer(timer);
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
  if (!matches(/ at \S+:\d+:\d+$/, message)) return error;
  const type = StringPrototypeIncludes(message, "does not provide an export named")
    ? "Runtime.ImportModuleError"
    : "Runtime.UserCodeSyntaxError";
  return new RuntimeError(type, message, { cause: error });
}

/** @param {Error} cause */
function notPermitted(cause) {
  return new RuntimeError(
    "Runtime.PermissionDenied",
    `${
      StringPrototypeSplit(cause.message, ", run again")[0]
    }: the function's permissions leave it out (deno.permissions in lambdeno.toml)`,
    { cause },
  );
}

/** @param {string} path */
function fileUrl(path) {
  const names = StringPrototypeSplit(path, "/");
  let url = "file://" + encodeURIComponent(names[0]);
  for (let i = 1; i < names.length; i++) url += "/" + encodeURIComponent(names[i]);
  return url;
}

/** @type {((reason?: unknown) => void) | null} what an event loop with nothing left in it decides */
let whenEmpty = null;

addEventListener("beforeunload", (event) => {
  if (!whenEmpty) return;
  const decide = whenEmpty;
  whenEmpty = null;
  EventPrototypePreventDefault(event);
  decide();
});

// --- One invocation ----------------------------------------------------------------------------

// What is the same for every invocation of this environment.
const environment = {
  functionName: getVariable("AWS_LAMBDA_FUNCTION_NAME"),
  functionVersion: getVariable("AWS_LAMBDA_FUNCTION_VERSION"),
  memoryLimitInMB: getVariable("AWS_LAMBDA_FUNCTION_MEMORY_SIZE"),
  logGroupName: getVariable("AWS_LAMBDA_LOG_GROUP_NAME"),
  logStreamName: getVariable("AWS_LAMBDA_LOG_STREAM_NAME"),
};
const SIGNAL_MARGIN = Number(getVariable("LAMBDENO_SIGNAL_MARGIN") ?? 500); // ms

/** What the handler is told about its invocation; the same as in Lambda's Node runtime, and a signal. */
class Context {
  callbackWaitsForEmptyEventLoop = true;
  #deadline;
  /** @type {AbortSignal | undefined} */
  #signal;

  /** @param {Headers} headers @param {Callback} finish */
  constructor(headers, finish) {
    const deadline = this.#deadline = Number(headers["lambda-runtime-deadline-ms"] ?? NaN);
    assign(this, environment);
    this.awsRequestId = headers["lambda-runtime-aws-request-id"];
    this.invokedFunctionArn = headers["lambda-runtime-invoked-function-arn"];
    this.clientContext = parsed(headers["lambda-runtime-client-context"], "ClientContext");
    this.identity = parsed(headers["lambda-runtime-cognito-identity"], "CognitoIdentity");
    this.tenantId = headers["lambda-runtime-aws-tenant-id"];
    this.xRayTraceId = headers["lambda-runtime-trace-id"];
    this.getRemainingTimeInMillis = () => deadline - currentTime();
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
  if (time !== time) return new AbortController().signal;
  const left = time - currentTime();
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
  if (id) setVariable("_X_AMZN_TRACE_ID", id);
  else deleteVariable("_X_AMZN_TRACE_ID");
}

/** @param {Received} received */
function eventOf({ body, isText }) {
  if (!isText) throw new RuntimeError("Runtime.UnmarshalError", "The event is not UTF-8");
  try {
    return parse(body);
  } catch (error) {
    // The rest of it quotes the event.
    const place = RegExpPrototypeExec(/ at position \d+/, String(error))?.[0] ?? "";
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
 * @param {Loaded} loaded @param {unknown} event @param {Headers} headers @returns {Promise<unknown>}
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
      then(/** @type {any} */ (value), ignore, ignore); // the first answer counts
    } else if (isThenable(value)) {
      whenEmpty = () => reject(neverSettled());
      then(value, (result) => finish(null, result), (error) => {
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
    then(promise, resolve, reject);
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
    (isA(Promise, value) || typeof getProperty(value, "then") === "function");
}

let isHandling = false;

/** The next message, where it was asked for while a response was streamed. @type {Promise<Received | null> | null} */
let coming = null;

/** Where the running invocation's stream goes, where it has one. @type {import("./streaming.js").Outlet | null} */
let outlet = null;

/** @param {Wire} wire @param {Loaded} loaded @param {Received} received */
async function answer(wire, loaded, received) {
  const { headers } = received;
  wire.number = received.number;
  request = {
    id: headers["lambda-runtime-aws-request-id"],
    tenantId: headers["lambda-runtime-aws-tenant-id"],
  };
  let result;
  isHandling = true;
  whenEmpty = null;
  try {
    setTraceId(headers["lambda-runtime-trace-id"]);
    const event = eventOf(received);
    if (loaded.rest && !loaded.web?.isHttp(event)) await restOf(loaded);
    let value = await outcome(loaded, event, headers);
    if (isBody(value)) value = await orNever(bodyOf(value, event));
    if (isA(Streamed, value)) return await stream(wire, /** @type {Streamed} */ (value));
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
  return asyncIterator in value || ObjectPrototypeToString(value) === "[object Response]";
}

/** @param {any} value @param {unknown} event */
async function bodyOf(value, event) {
  if (asyncIterator in value) return new Streamed(value);
  const { resultOfResponse } = await webModule();
  return resultOfResponse(value, event, getVariable("LAMBDENO_INVOKE_MODE"), tools);
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
  try {
    exit(status);
  } catch { // a listener throws, or Deno itself misses what the function has taken away
    defineProperty(global, "globalThis", { value: global });
    setProperty(global, UNLOADED, true);
    exit(status);
  }
}

const UNLOADED = Symbol.for("Deno.isUnloadDispatched"); // Deno's: exit() then calls no listener

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
      const last = { status: "501" };
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
    const lines = stackOf(cause);
    let stack = `${type}: ${error.message}`;
    for (let i = 1; i < lines.length; i++) stack += `\n${lines[i]}`;
    error.stack = stack;
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
    const emit = (process) =>
      process.emit("unhandledRejection", reason, RejectionEventPrototypeGetPromise(event));
    const reason = RejectionEventPrototypeGetReason(event);
    uncaught(event, "unhandledRejection", emit, () => fail(wire, REJECTION, reason));
  });
  addEventListener("error", (event) => {
    const thrown = ErrorEventPrototypeGetError(event) ?? ErrorEventPrototypeGetMessage(event);
    /** @type {(process: EventEmitter) => void} */
    const emit = (process) => process.emit("uncaughtException", thrown, "uncaughtException");
    uncaught(event, "uncaughtException", emit, () => fail(wire, EXCEPTION, thrown));
  });
  addEventListener("unload", () => {
    if (isEnding) return;
    if (bridge && !bridge.logInStream) bridge.send("102 Exit", "", ""); // not any other end
    const lines = stackOf(new Error());
    let text = "";
    for (let i = 1; i < lines.length; i++) {
      if (StringPrototypeIncludes(lines[i], "file://")) text += `\n${lines[i]}`;
    }
    if (text) logValues(ERROR, [`Deno.exit was called${text}`]);
  });
}

/** @typedef {{ listenerCount: (name: string) => number, emit: (...values: unknown[]) => void }} EventEmitter */

/**
 * @param {Event} event @param {string} name Node's, of the same
 * @param {(process: EventEmitter) => void} emit @param {() => void} fail
 */
function uncaught(event, name, emit, fail) {
  let isHandled = false;
  EventPrototypePreventDefault(event); // or else Deno would end before anything could be sent
  event.preventDefault = () => void (isHandled = true); // a later listener's
  queueMicrotask(() => {
    if (isHandled) return;
    try {
      const { process } = /** @type {{ process?: EventEmitter }} */ (global);
      if (process?.listenerCount(name)) return emit(process);
    } catch {
      /* what listens for errors fails itself; or Deno, which makes `process` when it is asked for */
    }
    fail();
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
  const path = getVariable("LAMBDENO_SOCKET");
  isFramed = getVariable("LAMBDENO_LOGS") === "frames";
  deleteVariable("LAMBDENO_SOCKET");
  deleteVariable("LAMBDENO_LOGS");
  const template = getVariable("DENO_PREFIX");
  if (template !== undefined) setPrefix(template);
  if (!/^(1|true)$/.test(getVariable("AWS_LAMBDA_NODEJS_NO_GLOBAL_AWSLAMBDA") ?? "")) {
    setProperty(global, "awslambda", awslambda);
  }
  let asksForSigterm = false; // process.on of Node comes here too; to look there takes 10 ms
  deno.addSignalListener = (signal, listener) => {
    asksForSigterm ||= signal === "SIGTERM";
    addSignalListener(signal, listener);
  };
  const connecting = (path ? socketAt(path) : Promise.resolve(standardStreams())).then(connected);
  watch(connecting);
  patchConsole();
  const wire = await connecting; // before the function's first word: no method of it is looked up any more
  let loaded;
  try {
    loaded = await loadFunction();
  } catch (failure) {
    if (isEnding) return;
    logThrown("Init Error", failure);
    isEnding = true;
    await sendError(wire, failure, { otherwise: "Function.InitError" });
    return end(1);
  }
  const { shutdown } = loaded;
  deno.addSignalListener = addSignalListener;
  if (typeof shutdown === "function") {
    asksForSigterm = true;
    addSignalListener("SIGTERM", () => shutDown(shutdown));
  }
  isLoaded = true;
  wire.send(`200 ${wire.number}`, asksForSigterm ? "Shutdown: yes\r\n" : "", "");
  for (let received; (received = await (coming ?? wire.receive()));) {
    coming = null;
    if (received.isCancel) continue; // of a stream that was over already
    await answer(wire, loaded, received);
    if (isEnding) return;
  }
  if (path) end(0); // the bootstrap is gone
  await shutDown(shutdown); // runtime2 is done with this process: what is open ends here
}

/** The bridge's own failure ends this process: there is nobody else to tell the bootstrap of it. */
async function run() {
  try {
    await main();
  } catch (thrown) {
    if (isEnding) return;
    logThrown("Runtime Error", thrown);
    end(EXCEPTION.status);
  }
}

run();
