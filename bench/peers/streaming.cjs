// The bench's stream for AWS's Node client.
exports.handler = awslambda.streamifyResponse(async (_event, stream) => {
  stream.write("first");
  await new Promise((resolve) => setTimeout(resolve, 20));
  stream.end("last");
});
