import type {} from "aws-lambda";
import { Buffer } from "node:buffer";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { createGzip } from "node:zlib";

export const handler = awslambda.streamifyResponse(
  async (event, responseStream, _context) => {
    const requestStream = Readable.from(Buffer.from(JSON.stringify(event)));
    await pipeline(requestStream, createGzip(), responseStream);
  },
);

export const page = awslambda.streamifyResponse(
  async (_event, responseStream, context) => {
    const metadata = {
      statusCode: 201,
      headers: { "content-type": "text/html", "x-a": "b" },
    };
    const stream = awslambda.HttpResponseStream.from(responseStream, metadata);
    stream.write("<p>first</p>");
    await new Promise((resolve) => setTimeout(resolve, 300));
    stream.write(`<p>${context.functionName}</p>`);
    stream.end();
  },
);
