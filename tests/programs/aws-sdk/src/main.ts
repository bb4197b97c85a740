import { DynamoDBClient, GetItemCommand, PutItemCommand } from "@aws-sdk/client-dynamodb";
import { GetObjectCommand, PutObjectCommand, S3Client } from "@aws-sdk/client-s3";

const dynamodb = new DynamoDBClient();
const s3 = new S3Client({ forcePathStyle: true });

export async function handler({ key, text }: { key: string; text: string }) {
  await s3.send(
    new PutObjectCommand({ Bucket: "things", Key: key, Body: text }),
  );
  const object = await s3.send(
    new GetObjectCommand({ Bucket: "things", Key: key }),
  );
  const Item = { id: { S: key }, text: { S: text } };
  await dynamodb.send(new PutItemCommand({ TableName: "things", Item }));
  const Key = { id: { S: key } };
  const item = await dynamodb.send(
    new GetItemCommand({ TableName: "things", Key }),
  );
  return {
    object: await object.Body?.transformToString(),
    item: item.Item?.text.S,
  };
}
