import { DynamoDBClient, GetItemCommand } from "@aws-sdk/client-dynamodb";
import { ListBucketsCommand, S3Client } from "@aws-sdk/client-s3";
import { Hono } from "hono";
import { z } from "zod";

const s3 = new S3Client({ region: "us-east-1" });
const dynamo = new DynamoDBClient({ region: "us-east-1" });
const Event = z.object({ k: z.string().optional() });
const app = new Hono();
app.get("/", (c) => c.text("hello"));

/** Uses a little of each, so that none is left out of the bundle. */
export const handler = (event: unknown) => ({
  ok: Event.safeParse(event).success,
  parts: [s3, dynamo, ListBucketsCommand, GetItemCommand, app].length,
});
