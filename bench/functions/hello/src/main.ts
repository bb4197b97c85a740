/** Answers at once, or with as many bytes as the event asks for. */
export const handler = (event: { size?: number }, context: { awsRequestId: string }) =>
  event.size ? "x".repeat(event.size) : { ok: true, id: context.awsRequestId };
