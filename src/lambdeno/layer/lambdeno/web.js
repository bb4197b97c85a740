// HTTP events of Lambda as the web has them: event -> Request -> Response -> what the caller takes.
//
// Loaded for functions that answer HTTP: `export default { fetch }`, Deno.serve, a handler that returns
// a Response. The forms of events and results:
//   Function URL, HTTP API  https://docs.aws.amazon.com/lambda/latest/dg/urls-invocation.html
//   REST API, WebSocket     https://docs.aws.amazon.com/apigateway/latest/developerguide/set-up-lambda-proxy-integrations.html
//   load balancer           https://docs.aws.amazon.com/lambda/latest/dg/services-alb.html

const encoder = new TextEncoder();
// A byte order mark is part of the body.
const strict = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/**
 * @typedef {object} Tools of runtime.js
 * @property {new (type: string, message: string, options?: ErrorOptions) => Error} RuntimeError
 * @property {new (body: import("./streaming.js").Body, contentType: string, prelude: object) => object} Streamed
 * @property {string} PRELUDE
 */
/** @typedef {{ fetch: (request: Request, info: object) => unknown, onError?: (error: unknown) => unknown }} Application */
/** @typedef {Record<string, any>} Event */

/**
 * How one kind of event has a request, and wants its response.
 * @typedef {object} Form
 * @property {(event: Event) => string} method
 * @property {(event: Event) => string} path without the stage, percent-encoded as far as a URL needs
 * @property {(event: Event) => string} query without a question mark
 * @property {(event: Event) => string | undefined} address the client's
 * @property {(event: Event) => boolean} streams whether the caller takes a streamed response
 * @property {(cookies: string[]) => object} cookies where a streamed response has them
 * @property {(event: Event, answer: Answer) => object} result
 */
/** @typedef {{ status: number, statusText: string, headers: Headers, body?: string, isBase64Encoded: boolean }} Answer */

// --- The forms -----------------------------------------------------------------------------------

/** Function URL, and HTTP API with payload 2.0. @type {Form} */
const V2 = {
  method: (event) => event.requestContext.http.method,
  path: (event) => withoutStage(event.rawPath ?? "/", event.requestContext.stage),
  query: (event) => event.rawQueryString ?? "",
  address: (event) => event.requestContext.http.sourceIp,
  // An HTTP API has the same events, and takes no stream.
  streams: (event) => String(event.requestContext.domainName).includes(".lambda-url."),
  cookies: (cookies) => ({ cookies }),
  result: (_event, { status, headers, body, isBase64Encoded }) => {
    const cookies = headers.getSetCookie();
    return {
      statusCode: status,
      headers: plain(headers),
      ...(cookies.length ? { cookies } : {}),
      body,
      isBase64Encoded,
    };
  },
};

/** REST API, and HTTP API with payload 1.0. @type {Form} */
const V1 = {
  method: (event) => event.httpMethod,
  path: (event) => event.path ?? "/",
  query: (event) => {
    const single = event.queryStringParameters;
    return queryOf(event.multiValueQueryStringParameters ?? single, encodeURIComponent);
  },
  address: (event) => event.requestContext?.identity?.sourceIp,
  streams: () => true,
  cookies: (cookies) => ({ multiValueHeaders: { "set-cookie": cookies } }),
  result: (_event, { status, headers, body, isBase64Encoded }) => ({
    statusCode: status,
    headers: {},
    multiValueHeaders: multiple(headers),
    body,
    isBase64Encoded,
  }),
};

/** Application load balancer. @type {Form} */
const ALB = {
  method: (event) => event.httpMethod,
  path: (event) => event.path ?? "/",
  query: (event) => {
    const single = event.queryStringParameters;
    return queryOf(event.multiValueQueryStringParameters ?? single, (word) => word); // encoded as they came
  },
  address: (event) => String(headersOf(event).get("x-forwarded-for") ?? "").split(",")[0].trim(),
  streams: () => false,
  cookies: () => ({}),
  result: (event, { status, statusText, headers, body, isBase64Encoded }) => ({
    statusCode: status,
    statusDescription: `${status} ${statusText}`.trim(),
    // The balancer reads the one map that it sends, and answers 502 to the other.
    ...(event.multiValueHeaders
      ? { multiValueHeaders: multiple(headers) }
      : { headers: { ...plain(headers), ...cookieHeaders(headers) } }),
    body,
    isBase64Encoded,
  }),
};

/** A route of a WebSocket API: a request to the route's own path. @type {Form} */
const WEBSOCKET = {
  method: (event) =>
    event.httpMethod ?? (event.requestContext.eventType === "MESSAGE" ? "POST" : "GET"),
  path: (event) =>
    "/" + encodeURIComponent(event.requestContext.routeKey ?? "$default").replace("%24", "$"),
  query: V1.query,
  address: V1.address,
  streams: () => false,
  cookies: () => ({}),
  result: V1.result,
};

/** The form of an HTTP event; null for any other. @param {any} event @returns {Form | null} */
function formOf(event) {
  const context = event?.requestContext;
  if (!context || typeof context !== "object") return null;
  if (event.methodArn || event.routeArn) return null; // who asks is an authorizer, for no response
  if (context.http?.method) return V2;
  if (context.elb && event.httpMethod) return ALB;
  if (context.connectionId && context.routeKey) return WEBSOCKET;
  return event.httpMethod ? V1 : null;
}

/** @param {string} path @param {string | undefined} stage */
function withoutStage(path, stage) {
  if (!stage || stage === "$default") return path;
  return withoutPrefix(path, "/" + stage);
}

/** A path without what it begins with, where a segment ends there. @param {string} path @param {string} prefix */
function withoutPrefix(path, prefix) {
  if (!path.startsWith(prefix)) return path;
  const rest = path.slice(prefix.length);
  if (rest === "") return "/";
  return rest.startsWith("/") ? rest : path;
}

/**
 * @param {Record<string, string | string[]> | null | undefined} parameters
 * @param {(word: string) => string} encode
 */
function queryOf(parameters, encode) {
  const words = [];
  for (const [name, values] of Object.entries(parameters ?? {})) {
    for (const value of [values].flat()) words.push(`${encode(name)}=${encode(value ?? "")}`);
  }
  return words.join("&");
}

/** Headers as one map; cookies are apart. @param {Headers} headers */
function plain(headers) {
  const map = Object.fromEntries(headers);
  delete map["set-cookie"];
  return map;
}

/** @param {Headers} headers */
function multiple(headers) {
  /** @type {Record<string, string[]>} */
  const map = {};
  for (const [name, value] of headers) (map[name] ??= []).push(value); // each set-cookie for itself
  return map;
}

/**
 * Several cookies in a map that has one value for a name: names differ by case. Nine letters make 512 of them.
 * @param {Headers} headers
 */
function cookieHeaders(headers) {
  /** @type {Record<string, string>} */
  const map = {};
  headers.getSetCookie().forEach((cookie, index) => {
    let bits = index;
    const name = "set-cookie".replace(/[a-z]/g, (letter) => {
      const cased = bits & 1 ? letter.toUpperCase() : letter;
      bits >>= 1;
      return cased;
    });
    map[name] = cookie;
  });
  return map;
}

// --- Event -> Request ----------------------------------------------------------------------------

/** @param {Event} event */
function headersOf(event) {
  const headers = new Headers();
  const several = event.multiValueHeaders ?? {};
  for (const [name, values] of Object.entries({ ...event.headers, ...several })) {
    for (const value of [values].flat()) append(headers, name, String(value ?? ""));
  }
  if (event.cookies?.length && !headers.has("cookie")) {
    append(headers, "cookie", event.cookies.join("; "));
  }
  return headers;
}

/** @param {Headers} headers @param {string} name @param {string} value */
function append(headers, name, value) {
  try {
    headers.append(name, value);
  } catch { // JSON has characters that a header has as bytes; a name may be none
    try {
      headers.append(name, String.fromCharCode(...encoder.encode(value)));
    } catch { /* nobody could have sent it */ }
  }
}

/** @param {Form} form @param {Event} event @param {Headers} headers @param {string} base */
function urlOf(form, event, headers, base) {
  const scheme = /^http\b(?!s)/.test(headers.get("x-forwarded-proto") ?? "") ? "http" : "https";
  const host = headers.get("host") || event.requestContext.domainName || "localhost";
  let path = form.path(event);
  if (!path.startsWith("/")) path = "/" + path;
  if (base) path = withoutPrefix(path, base);
  // Some events have the path decoded; what is left of it that a URL cannot have, URL encodes itself.
  path = path.replace(/[?#\\]/g, encodeURIComponent).replace(/%(?![0-9a-fA-F]{2})/g, "%25");
  const query = form.query(event);
  const rest = path + (query ? "?" + query : "");
  for (const origin of [`${scheme}://${host}`, `https://${host}`, "https://localhost"]) {
    if (URL.canParse(origin + rest)) return origin + rest;
  }
  return "https://localhost/";
}

/** @param {Event} event @returns {Uint8Array<ArrayBuffer> | string | null} */
function bodyOf(event) {
  if (typeof event.body !== "string" || event.body === "") return null;
  return event.isBase64Encoded ? Uint8Array.fromBase64(event.body) : event.body;
}

/**
 * @param {Form} form @param {Event} event @param {object} context @param {string} base
 * @param {AbortSignal} [signal]
 */
function requestOf(form, event, context, base, signal) {
  const headers = headersOf(event);
  const method = form.method(event);
  const body = method === "GET" || method === "HEAD" ? null : bodyOf(event);
  const request = new Request(urlOf(form, event, headers, base), { method, headers, body, signal });
  if (typeof body === "string" && !headers.has("content-type")) {
    request.headers.delete("content-type"); // which Request makes up for text
  }
  Object.defineProperty(request, "lambda", { value: { event, context } });
  return request;
}

// --- Response -> result --------------------------------------------------------------------------

const TEXT =
  /^(text\/.*|application\/([a-z0-9.-]*\+)?(json|xml|yaml)|application\/(javascript|x-www-form-urlencoded)|image\/svg\+xml)$/;
const HOP_BY_HOP = ["connection", "keep-alive", "transfer-encoding", "upgrade", "trailer"];
const BODILESS = [101, 204, 205, 304];
/** @type {Record<number, string>} of the balancer's statusDescription, where the response has none */
const STATUS_TEXT = {
  200: "OK",
  201: "Created",
  202: "Accepted",
  204: "No Content",
  206: "Partial Content",
  301: "Moved Permanently",
  302: "Found",
  303: "See Other",
  304: "Not Modified",
  307: "Temporary Redirect",
  308: "Permanent Redirect",
  400: "Bad Request",
  401: "Unauthorized",
  403: "Forbidden",
  404: "Not Found",
  405: "Method Not Allowed",
  409: "Conflict",
  410: "Gone",
  413: "Content Too Large",
  415: "Unsupported Media Type",
  422: "Unprocessable Content",
  429: "Too Many Requests",
  500: "Internal Server Error",
  501: "Not Implemented",
  502: "Bad Gateway",
  503: "Service Unavailable",
  504: "Gateway Timeout",
};

/** Whether a body may go as text: the caller is sent it as UTF-8. @param {Headers} headers */
function isText(headers) {
  const encoding = headers.get("content-encoding");
  if (encoding && encoding !== "identity") return false;
  const type = headers.get("content-type");
  if (type === null) return true;
  const [kind, ...parameters] = type.toLowerCase().split(";").map((word) => word.trim());
  if (!TEXT.test(kind)) return false;
  const charset = parameters.find((word) => word.startsWith("charset="));
  return !charset || /^charset="?(utf-?8|us-ascii)"?$/.test(charset);
}

/** @param {Response} response @param {string} method @returns {Promise<Answer>} */
async function answerOf(response, method) {
  const headers = new Headers(response.headers);
  for (const name of HOP_BY_HOP) headers.delete(name);
  const { status } = response;
  const statusText = response.statusText || STATUS_TEXT[status] || "";
  const answer = { status, statusText, headers, isBase64Encoded: false };
  if (method === "HEAD" || BODILESS.includes(status)) {
    await response.body?.cancel();
    return answer;
  }
  headers.delete("content-length"); // whoever sends the body to the client sets it
  const bytes = await response.bytes();
  if (bytes.length === 0) return answer;
  if (isText(headers)) {
    try {
      return { ...answer, body: strict.decode(bytes) };
    } catch { /* not UTF-8 */ }
  }
  return { ...answer, body: bytes.toBase64(), isBase64Encoded: true };
}

/** @param {Response} response @param {Form} form @param {string} method @param {Tools} tools */
function streamed(response, form, method, { Streamed, PRELUDE }) {
  const headers = new Headers(response.headers);
  for (const name of [...HOP_BY_HOP, "content-length"]) headers.delete(name);
  const isBodiless = method === "HEAD" || BODILESS.includes(response.status);
  if (isBodiless) response.body?.cancel();
  return new Streamed(isBodiless ? null : response.body, PRELUDE, {
    statusCode: response.status,
    headers: plain(headers),
    ...form.cookies(headers.getSetCookie()),
  });
}

/** @param {unknown} value @returns {value is Response} */
function isResponse(value) {
  return value instanceof Response || Object.prototype.toString.call(value) === "[object Response]";
}

// --- What runtime.js calls -----------------------------------------------------------------------

/** An application: what `deno serve` would run, or what the function gave to Deno.serve. */
export class Web {
  #application;
  #tools;
  #base = (Deno.env.get("LAMBDENO_BASE_PATH") ?? "").replace(/^\/*(?=.)/, "/").replace(/\/+$/, "");

  /**
   * @param {Application} application
   * @param {string | undefined} mode "streaming" or "buffered"
   * @param {boolean} takesAll whether there is no handler for events that are none of HTTP
   * @param {Tools} tools
   */
  constructor(application, mode, takesAll, tools) {
    this.#application = application;
    this.isStreaming = mode === "streaming";
    this.takesAll = takesAll;
    this.#tools = tools;
  }

  /**
   * Goes the whole way once: Deno loads the web's classes at their first use, which takes 20 ms that
   * belong to the init; and what has run is in the code cache.
   */
  async warm() {
    const http = { method: "POST", path: "/", sourceIp: "" };
    const event = { body: "", headers: {}, requestContext: { http, stage: "$default" } };
    const request = requestOf(V2, event, {}, "", new AbortController().signal);
    const response = new Response(new Blob([await request.text()]).stream());
    V2.result(event, await answerOf(response, "POST"));
  }

  /** @param {unknown} event */
  isHttp(event) {
    return formOf(event) !== null;
  }

  /** @param {unknown} event */
  takes(event) {
    return this.takesAll || this.isHttp(event);
  }

  /** @param {any} event @param {object} context */
  async answer(event, context) {
    const form = formOf(event);
    if (!form) {
      throw new this.#tools.RuntimeError(
        "Runtime.NoHandlerForEvent",
        "The event is none of HTTP, and the function exports no handler beside its fetch: export one that takes it",
      );
    }
    const streams = this.isStreaming && form.streams(event);
    const gone = streams ? new AbortController() : null;
    const method = form.method(event);
    let request;
    try {
      request = requestOf(form, event, context, this.#base, gone?.signal);
    } catch (cause) {
      if (!/^(TRACE|TRACK|CONNECT)$/i.test(method)) throw unreadable(this.#tools, cause);
      return form.result(event, await answerOf(new Response(null, { status: 501 }), method));
    }
    const handled = Promise.withResolvers();
    const response = await this.#fetch(request, infoOf(form, event, context, handled.promise));
    if (!streams) {
      const answer = await answerOf(response, method);
      handled.resolve(undefined);
      return form.result(event, answer);
    }
    const result = streamed(response, form, method, this.#tools);
    return Object.assign(result, {
      onEnd: handled.resolve,
      onCancel: () => gone?.abort(new DOMException("The client is gone", "AbortError")),
    });
  }

  /** @param {Request} request @param {object} info @returns {Promise<Response>} */
  async #fetch(request, info) {
    const application = this.#application;
    let response;
    try {
      response = await application.fetch(request, info);
    } catch (error) {
      if (!application.onError) throw error;
      response = await application.onError(error);
    }
    if (isResponse(response)) return response;
    throw new this.#tools.RuntimeError(
      "Runtime.NotAResponse",
      `fetch returned ${response === null ? "null" : typeof response}, not a Response`,
    );
  }
}

/** @param {Tools} tools @param {unknown} cause */
function unreadable({ RuntimeError }, cause) {
  const message = `The event is no request: ${/** @type {Error} */ (cause).message}`;
  return new RuntimeError("Runtime.UnmarshalError", message, { cause });
}

/** The second argument of fetch. @param {Form} form @param {Event} event @param {object} lambdaContext @param {Promise<unknown>} completed */
function infoOf(form, event, lambdaContext, completed) {
  const hostname = form.address(event) || "127.0.0.1";
  return {
    remoteAddr: { transport: "tcp", hostname, port: 0 },
    completed,
    event,
    requestContext: event.requestContext,
    lambdaContext,
  };
}

/**
 * A Response that a handler has returned: in the event's form, or else its body alone.
 * @param {Response} response @param {any} event @param {string | undefined} mode @param {Tools} tools
 */
export async function resultOfResponse(response, event, mode, tools) {
  const form = formOf(event);
  if (!form) {
    const text = await response.text();
    try {
      return JSON.parse(text);
    } catch {
      return text;
    }
  }
  const method = form.method(event);
  if (mode === "streaming" && form.streams(event)) return streamed(response, form, method, tools);
  return form.result(event, await answerOf(response, method));
}
