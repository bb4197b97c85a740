/** What lambdeno calls, and what it gives: `import type { Context, Handler } from "lambdeno"`. */

import type { Writable } from "node:stream";

/**
 * A function that answers an event with a value, or the promise of one. Events and results are JSON;
 * what it throws is the answer, too, as an error.
 */
export type Handler<Event = unknown, Result = unknown> = (
  event: Event,
  context: Context,
) => Result | Promise<Result>;

/** What a handler is told about its invocation: the same as in Lambda's Node runtime, and `signal`. */
export interface Context {
  /** The function's name. */
  readonly functionName: string;
  /** The version that is invoked: a number, or `$LATEST`. */
  readonly functionVersion: string;
  /** The function's memory in MB, as text. */
  readonly memoryLimitInMB: string;
  /** CloudWatch's log group of the function. */
  readonly logGroupName: string;
  /** CloudWatch's log stream of this execution environment. */
  readonly logStreamName: string;
  /** The id of this invocation; the same when Lambda retries an event. */
  readonly awsRequestId: string;
  /** The ARN that was invoked: of the function, a version or an alias. */
  readonly invokedFunctionArn: string;
  /** What the caller sent as ClientContext. */
  readonly clientContext?: ClientContext;
  /** Who calls, where Amazon Cognito knows it. */
  readonly identity?: Identity;
  /** The tenant, for a function with tenant isolation. */
  readonly tenantId?: string;
  /** The trace in X-Ray that the invocation belongs to. */
  readonly xRayTraceId?: string;

  /** Aborts shortly before the deadline (`signal_margin`): `fetch(url, { signal: context.signal })`. */
  readonly signal: AbortSignal;
  /** Milliseconds until Lambda ends the invocation. */
  getRemainingTimeInMillis(): number;

  /** Whether what a callback answers waits until the event loop is empty; `true` at first. */
  callbackWaitsForEmptyEventLoop: boolean;
  /** Answers with a result. Code of today returns it. */
  succeed(result?: unknown): void;
  /** Answers with an error. Code of today throws it. */
  fail(error?: unknown): void;
  /** Answers with an error, or else with a result. Code of today throws or returns. */
  done(error?: unknown, result?: unknown): void;
}

/** What AWS's mobile SDKs send, or whatever else the caller makes of it. */
export interface ClientContext {
  readonly client?: Readonly<Record<string, unknown>>;
  readonly custom?: Readonly<Record<string, unknown>>;
  readonly env?: Readonly<Record<string, unknown>>;
  readonly [key: string]: unknown;
}

/** An identity of Amazon Cognito. */
export interface Identity {
  readonly cognitoIdentityId: string;
  readonly cognitoIdentityPoolId: string;
}

// --- HTTP ----------------------------------------------------------------------------------------

/** What `export default { fetch }` has: `const fetch: FetchHandler = (request) => new Response("…")`. */
export type FetchHandler = (request: Request, info: ServeInfo) => Response | Promise<Response>;

/** The second argument of `fetch`: who asks, and what Lambda knows. Hono has it as `c.env`. */
export interface ServeInfo {
  /** The client's address; its port is not known. */
  readonly remoteAddr: Deno.NetAddr;
  /** Settles when the response is on its way. */
  readonly completed: Promise<void>;
  /** The raw event. */
  readonly event: HttpEvent;
  /** The raw event's own `requestContext`: authorizers, stage, the request's id. */
  readonly requestContext: HttpEvent["requestContext"];
  /** What a handler has as `context`. */
  readonly lambdaContext: Context;
}

/**
 * An event of HTTP. Each has more; `npm:@types/aws-lambda` has the types of all:
 * `event as APIGatewayProxyEvent`.
 */
export type HttpEvent = UrlEvent | RestEvent | BalancerEvent | WebSocketEvent;

/** Of a Function URL, or an HTTP API with payload 2.0: `"rawPath" in event`. */
export interface UrlEvent extends AnyHttpEvent {
  readonly rawPath: string;
  readonly rawQueryString: string;
  readonly cookies?: string[];
  readonly requestContext: RequestContext & {
    readonly http: { readonly method: string; readonly path: string; readonly sourceIp: string };
  };
}

/** Of a REST API, or an HTTP API with payload 1.0: `"resource" in event`. */
export interface RestEvent extends AnyHttpEvent {
  readonly resource: string;
  readonly httpMethod: string;
  readonly path: string;
  readonly requestContext: RequestContext;
}

/** Of a load balancer: `event.requestContext.elb`. */
export interface BalancerEvent extends AnyHttpEvent {
  readonly httpMethod: string;
  readonly path: string;
  readonly requestContext: RequestContext & { readonly elb: { readonly targetGroupArn: string } };
}

/** Of a route of a WebSocket API: `event.requestContext.connectionId`. */
export interface WebSocketEvent extends AnyHttpEvent {
  readonly requestContext: RequestContext & {
    readonly connectionId: string;
    readonly routeKey: string;
  };
}

/** What events of all kinds may have. */
interface AnyHttpEvent {
  readonly headers?: Fields<string>;
  readonly multiValueHeaders?: Fields<string[]>;
  readonly queryStringParameters?: Fields<string>;
  readonly multiValueQueryStringParameters?: Fields<string[]>;
  readonly body?: string | null;
  readonly isBase64Encoded?: boolean;
}

type Fields<Value> = Readonly<Record<string, Value | undefined>> | null;

// deno-lint-ignore no-explicit-any
type RequestContext = Readonly<Record<string, any>>;

// --- Streams -------------------------------------------------------------------------------------

/** A handler that yields its answer: bytes and text as they are, anything else as JSON. */
export type StreamHandler<Event = unknown, Chunk = Uint8Array | string> = (
  event: Event,
  context: Context,
) => AsyncGenerator<Chunk, void, void>;

/** A handler for `awslambda.streamifyResponse`: it writes its answer. */
export type StreamifyHandler<Event = unknown> = (
  event: Event,
  responseStream: ResponseStream,
  context: Context,
) => Promise<unknown>;

/** What it writes to. */
export interface ResponseStream extends Writable {
  /** Before the first bytes; application/octet-stream without it. */
  setContentType(type: string): void;
}

/** Status, headers and cookies before a streamed body. */
export interface HttpResponseMetadata {
  statusCode?: number;
  headers?: Record<string, string>;
  cookies?: string[];
}

declare global {
  /** As in Lambda's Node runtime. */
  namespace awslambda {
    /** Marks a handler that writes its answer; gives it back. */
    function streamifyResponse<Event = unknown>(
      handler: StreamifyHandler<Event>,
      options?: { highWaterMark?: number },
    ): StreamifyHandler<Event>;

    namespace HttpResponseStream {
      /** Says what goes out before the first bytes; gives the stream back. */
      // @ts-ignore: npm:@types/aws-lambda declares it as well, where a project has that
      function from(stream: Writable, metadata: HttpResponseMetadata): ResponseStream;
    }
  }

  interface Request {
    /** The event and the context behind a request that `fetch` was given. */
    readonly lambda?: { readonly event: HttpEvent; readonly context: Context };
  }
}
