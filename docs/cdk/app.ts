/**
 * What `lambdeno build` has made of a project, as a CDK stack; CDK runs under Deno.
 *
 *     lambdeno deno run -A app.ts PROJECT                                           # synthesises
 *     npx aws-cdk@2 deploy --app "lambdeno deno run -A app.ts PROJECT"            # deploys
 *
 * @module
 */
import { App, CfnOutput, Duration, RemovalPolicy, Stack } from "aws-cdk-lib";
import { Architecture, Code, Function, LayerVersion, Runtime } from "aws-cdk-lib/aws-lambda";
import { LogGroup, RetentionDays } from "aws-cdk-lib/aws-logs";

const dist = `${Deno.args[0] ?? "."}/dist`;
const made = JSON.parse(Deno.readTextFileSync(`${dist}/manifest.json`));
const stack = new Stack(new App(), made.function.name);
const architecture = made["deno-layer"].architecture === "arm64"
  ? Architecture.ARM_64
  : Architecture.X86_64;

function layer(id: string, kind: "deno-layer" | "runtime-layer"): LayerVersion {
  return new LayerVersion(stack, id, {
    code: Code.fromAsset(`${dist}/${made[kind].file}`),
    description: made[kind].digest,
    compatibleArchitectures: [architecture],
    removalPolicy: RemovalPolicy.RETAIN, // a former version of the function may need it
  });
}

const deployed = new Function(stack, "Function", {
  functionName: made.function.name,
  code: Code.fromAsset(`${dist}/${made.function.file}`),
  handler: made.function.handler,
  runtime: Runtime.PROVIDED_AL2023,
  architecture,
  layers: [layer("DenoLayer", "deno-layer"), layer("RuntimeLayer", "runtime-layer")],
  memorySize: 512,
  timeout: Duration.seconds(10),
  environment: { LAMBDENO_RUNTIME: "runtime1" },
  logGroup: new LogGroup(stack, "Log", {
    retention: RetentionDays.ONE_MONTH,
    removalPolicy: RemovalPolicy.DESTROY,
  }),
});
new CfnOutput(stack, "FunctionArn", { value: deployed.functionArn });
