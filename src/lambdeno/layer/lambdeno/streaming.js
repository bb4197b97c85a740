// A result that goes to Lambda while it is made: chunks on the bridge's connection, an error as trailers.
//
// Loaded for functions that stream. The other side is streaming.py.
// https://docs.aws.amazon.com/lambda/latest/dg/runtimes-custom.html#runtimes-custom-response-streaming

const NEW_LINE = new Uint8Array([13, 10]);
const DELIMITER = new Uint8Array(8); // between prelude and body
const NOTHING = new Uint8Array();
const SMALL = 16 * 1024; // bytes: up to here one write costs less than a copy
const STOP_TIME = 100; // ms that a generator has to end in, when nobody reads it any more
const LONGEST_ERROR = 48 * 1024; // characters of an error in a trailer

/**
 * @typedef {object} Wire of runtime.js
 * @property {(...parts: Uint8Array[]) => Promise<void>} write
 * @property {((event: Uint8Array) => Promise<void>) | null} logInStream
 * @property {string} number of the request that is answered
 */
/**
 * @typedef {object} Tools of runtime.js
 * @property {any} primordials what is as it was before the function could change it
 * @property {string} PRELUDE
 * @property {new (type: string, message: string, options?: ErrorOptions) => Error} RuntimeError
 * @property {new (body: Body) => Streamed} Streamed
 * @property {(thrown: unknown) => { body: string, type: string }} errorOf
 * @property {(wire: any, thrown: unknown, options?: { status: string }) => Promise<void>} sendError
 */
/** @typedef {(outlet: Outlet) => Promise<void>} Writer */
/** @typedef {ReadableStream | AsyncIterable<unknown> | Writer | null} Body */
/**
 * @typedef {object} Streamed of runtime.js
 * @property {Body} body
 * @property {string} contentType
 * @property {object} [prelude]
 * @property {() => void} [onCancel] called when nobody reads it any more
 * @property {(value?: unknown) => void} [onEnd]
 */

/** Where one invocation's chunks go. */
export class Outlet {
  #wire;
  #streamed;
  #tools;
  #primordials;
  /** Ends what makes the chunks. @type {() => unknown} */
  #stop = nothing;
  isBegun = false; // Lambda has the first bytes: an error can only be told in the end
  isOver = false;

  /** @param {Wire} wire @param {Streamed} streamed @param {Tools} tools */
  constructor(wire, streamed, tools) {
    this.#wire = wire;
    this.#streamed = streamed;
    this.#tools = tools;
    this.#primordials = tools.primordials;
  }

  get contentType() {
    return this.#streamed.contentType;
  }

  /** Before the first bytes. @param {string} type @param {object} [prelude] */
  setHead(type, prelude) {
    this.#streamed.contentType = type;
    this.#streamed.prelude = prelude;
  }

  /**
   * Sends a body to its end, or until the bootstrap says that nobody reads it.
   * @param {Body} body @param {Promise<{ isCancel: boolean } | null>} coming the bootstrap's next message
   */
  async send(body, coming) {
    const { race, then, withResolvers } = this.#primordials;
    const { promise: cancelled, resolve: cancel, reject } = withResolvers();
    then(coming, (/** @type {{ isCancel: boolean } | null} */ message) => {
      if (!this.isOver && (!message || message.isCancel)) then(this.#cancel(), cancel, reject);
    }, reject);
    await race(this.#run(body), cancelled);
  }

  /** @param {Body} body */
  async #run(body) {
    try {
      if (typeof body === "function") await body(this);
      else if (body) await this.#pump(body);
      await this.#end();
    } finally {
      this.#streamed.onEnd?.();
    }
  }

  /** One chunk is on its way before the next one is asked for. @param {ReadableStream | AsyncIterable<unknown>} body */
  async #pump(body) {
    const reader = body instanceof ReadableStream ? body.getReader() : null;
    const source = reader
      ? { next: () => reader.read(), stop: () => reader.cancel(gone()) }
      : generated(/** @type {AsyncIterable<unknown>} */ (body));
    this.onStop(() => source.stop());
    while (!this.isOver) {
      const { done, value } = await source.next();
      if (done) return;
      await this.write(value);
    }
  }

  /** @param {() => unknown} stop */
  onStop(stop) {
    this.#stop = stop;
  }

  /**
   * Sends bytes, text, or anything else as JSON; resolves when there is room for more.
   * @param {unknown} chunk
   */
  async write(chunk) {
    if (this.isOver) return;
    const bytes = this.#bytesOf(chunk);
    if (!this.isBegun) await this.#begin(bytes);
    else if (this.#sizeOf(bytes)) await this.#send(bytes);
  }

  /** The head goes with the first bytes. @param {Uint8Array} bytes */
  #begin(bytes) {
    const { RegExpPrototypeExec, encode, stringify } = this.#primordials;
    const { contentType, prelude } = this.#streamed;
    const first = prelude ? this.#joined(encode(stringify(prelude)), DELIMITER, bytes) : bytes;
    this.#wire.logInStream = (event) => this.#send(event, ";log");
    const type = RegExpPrototypeExec(/^[\x21-\x7e][\x20-\x7e]{0,255}$/, contentType)
      ? contentType
      : "application/octet-stream";
    const head = encode(
      `HTTP/1.1 200 ${this.#wire.number}\r\nLambda-Runtime-Function-Response-Mode: streaming\r\n` +
        `Content-Type: ${type}\r\nTransfer-Encoding: chunked\r\n\r\n`,
    );
    this.isBegun = true;
    return this.#sizeOf(first) ? this.#send(first, "", head) : this.#wire.write(head);
  }

  async #end() {
    if (this.isOver) return;
    if (!this.isBegun) await this.#begin(NOTHING);
    await this.#close("");
  }

  /**
   * Tells of an error: as the invocation's, or where the response has begun, behind it.
   * @param {unknown} thrown @param {{ status: string }} [last] where this process ends with it
   */
  async fail(thrown, last) {
    if (this.isOver) return;
    if (!this.isBegun) {
      this.isOver = true;
      await this.#tools.sendError(this.#wire, thrown, last);
      return;
    }
    const { type, body } = this.#tools.errorOf(thrown);
    const text = body.length <= LONGEST_ERROR ? body : shortened(body, this.#primordials);
    const { Uint8ArrayPrototypeToBase64, encode } = this.#primordials;
    const encoded = Uint8ArrayPrototypeToBase64(encode(text));
    await this.#close(
      `Lambda-Runtime-Function-Error-Type: ${type}\r\nLambda-Runtime-Function-Error-Body: ${encoded}\r\n` +
        (last ? "Last: yes\r\n" : ""),
    );
  }

  /** @param {string} trailers lines, each with its CRLF */
  async #close(trailers) {
    this.isOver = true;
    this.#wire.logInStream = null;
    await this.#wire.write(this.#primordials.encode(`0\r\n${trailers}\r\n`));
  }

  /** Has the function stop, for which it has a moment before the next event. */
  async #cancel() {
    const { race } = this.#primordials;
    this.isOver = true;
    try {
      this.#streamed.onCancel?.();
      await race(this.#stop(), this.#pause(STOP_TIME));
    } catch { /* nobody is there to be told */ }
    await this.#pause(0); // what hears of it by events
    await this.#close("");
  }

  /** @param {number} ms @returns {Promise<void>} */
  #pause(ms) {
    const { Promise, startTimer } = this.#primordials;
    return new Promise((/** @type {() => void} */ resolve) => startTimer(resolve, ms));
  }

  /** Sends a chunk (RFC 9112, 7.1). @param {Uint8Array} bytes @param {string} [extension] @param {Uint8Array} [head] before it */
  #send(bytes, extension = "", head = NOTHING) {
    const { NumberPrototypeToString, encode } = this.#primordials;
    const size = this.#sizeOf(bytes);
    const line = encode(`${NumberPrototypeToString(size, 16)}${extension}\r\n`);
    return size <= SMALL / 2
      ? this.#wire.write(this.#joined(head, line, bytes, NEW_LINE))
      : this.#wire.write(this.#joined(head, line), bytes, NEW_LINE);
  }

  /** @param {Uint8Array} bytes @returns {number} */
  #sizeOf(bytes) {
    return this.#primordials.TypedArrayPrototypeGetLength(bytes);
  }

  /** @param {Uint8Array[]} parts @returns {Uint8Array} */
  #joined(...parts) {
    const { TypedArrayPrototypeSet, Uint8Array } = this.#primordials;
    let size = 0;
    for (let i = 0; i < parts.length; i++) size += this.#sizeOf(parts[i]);
    const whole = new Uint8Array(size);
    for (let i = 0, at = 0; i < parts.length; i++) {
      TypedArrayPrototypeSet(whole, parts[i], at);
      at += this.#sizeOf(parts[i]);
    }
    return whole;
  }

  /** @param {unknown} chunk @returns {Uint8Array} */
  #bytesOf(chunk) {
    const { ArrayBuffer, Uint8Array, encode, isA, isView, stringify } = this.#primordials;
    if (isA(Uint8Array, chunk)) return /** @type {Uint8Array} */ (chunk);
    if (typeof chunk === "string") return encode(chunk);
    if (isView(chunk)) {
      const { buffer, byteOffset, byteLength } = /** @type {ArrayBufferView} */ (chunk);
      return new Uint8Array(buffer, byteOffset, byteLength);
    }
    if (isA(ArrayBuffer, chunk)) return new Uint8Array(/** @type {ArrayBuffer} */ (chunk));
    try {
      return encode(stringify(chunk) ?? "null");
    } catch (cause) {
      const message = `Cannot stream a chunk as JSON: ${cause}`;
      throw new this.#tools.RuntimeError("Runtime.MarshalError", message, { cause });
    }
  }
}

/** @param {AsyncIterable<unknown>} body */
function generated(body) {
  const iterator = body[Symbol.asyncIterator]();
  return { next: () => iterator.next(), stop: () => iterator.return?.() };
}

function nothing() {}

function gone() {
  return new DOMException("The client is gone", "AbortError");
}

/** An error without what makes it long. @param {string} body @param {any} primordials */
function shortened(body, { StringPrototypeSlice, parse, stringify }) {
  const { errorType, errorMessage } = parse(body);
  return stringify({
    errorType: StringPrototypeSlice(errorType, 0, 256),
    errorMessage: StringPrototypeSlice(errorMessage, 0, LONGEST_ERROR / 8),
    trace: [],
  });
}

// --- Handlers of Lambda's Node runtime -----------------------------------------------------------

/**
 * What awslambda.streamifyResponse has marked: (event, responseStream, context).
 * @param {(event: unknown, stream: object, context: object) => unknown} handler
 * @param {{ Writable: typeof import("node:stream").Writable }} node
 * @param {number | undefined} highWaterMark bytes
 * @param {Tools} tools
 * @returns {(event: unknown, context: object) => Streamed}
 */
export function nodeHandler(handler, { Writable }, highWaterMark, tools) {
  const { RuntimeError, Streamed, primordials: { then, withResolvers } } = tools;

  /** Node's own stream, as pipeline() and libraries want it. */
  class ResponseStream extends Writable {
    #outlet;
    /** @type {object | undefined} set by awslambda.HttpResponseStream.from */
    prelude;

    /** @param {Outlet} outlet */
    constructor(outlet) {
      super({ highWaterMark, decodeStrings: true });
      this.#outlet = outlet;
    }

    /** @param {string} type */
    setContentType(type) {
      if (this.#outlet.isBegun) {
        throw new RuntimeError(
          "Runtime.InvalidStreamingOperation",
          "Cannot set content-type, too late.",
        );
      }
      this.#outlet.setHead(type);
    }

    /**
     * As in Node's runtime: what is neither text nor bytes goes as JSON.
     * @override
     * @param {any} chunk @param {any[]} rest
     */
    write(chunk, ...rest) {
      const isPlain = typeof chunk === "string" || chunk instanceof Uint8Array;
      const data = isPlain ? chunk : JSON.stringify(chunk);
      if (data === "" || data?.length === 0) this.#head();
      return super.write(data, ...rest);
    }

    /** @override @param {Uint8Array} chunk @param {string} _encoding @param {(error?: Error) => void} done */
    _write(chunk, _encoding, done) {
      this.#head();
      then(this.#outlet.write(chunk), () => done(), done);
    }

    /** @override @param {(error?: Error) => void} done */
    _final(done) {
      this.#head();
      done();
    }

    /** The prelude, before the first bytes. */
    #head() {
      if (this.prelude && !this.#outlet.isBegun) {
        this.#outlet.setHead(this.#outlet.contentType, this.prelude);
      }
    }
  }

  /** @param {Outlet} outlet @param {unknown} event @param {object} context */
  async function run(outlet, event, context) {
    const stream = new ResponseStream(outlet);
    outlet.onStop(() => stream.destroy());
    const value = handler(event, stream, context);
    if (typeof (/** @type {any} */ (value)?.then) !== "function") {
      throw new RuntimeError(
        "Runtime.InvalidStreamingOperation",
        "Streaming does not support non-async handlers.",
      );
    }
    await value;
    if (stream.destroyed && stream.errored) throw stream.errored;
    if (!stream.writableEnded) {
      throw new RuntimeError(
        "Runtime.InvalidStreamingOperation",
        "Response stream is not finished.",
      );
    }
    if (!stream.writableFinished) {
      const { promise, resolve, reject } = withResolvers();
      stream.once("finish", resolve).once("error", reject);
      await promise;
    }
  }

  return (event, context) => {
    for (const name of ["succeed", "fail", "done"]) Reflect.deleteProperty(context, name);
    return new Streamed((outlet) => run(outlet, event, context));
  };
}
