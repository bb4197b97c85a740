/** Answers at once. */
export const handler = (_event: unknown, context: { awsRequestId: string }) => ({
  ok: true,
  id: context.awsRequestId,
});
