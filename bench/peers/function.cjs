// The bench's function for AWS's Node client.
exports.handler = (event, context) =>
  Promise.resolve(
    event.size ? "x".repeat(event.size) : { ok: true, id: context.awsRequestId },
  );
