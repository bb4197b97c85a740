/** What a handler is told about its invocation. */
export interface Context {
  awsRequestId: string;
  functionName: string;
  getRemainingTimeInMillis(): number;
}
