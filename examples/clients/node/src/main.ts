// A client of Localplane in TypeScript: lists the models, loads one, watches what it costs, asks it
// something, counts its tokens, stops it, and handles an error by its reason.
//
//   npm start -- [--address HOST:PORT] [--model NAME] [QUESTION]
import { parseArgs } from "node:util";

import {
  credentials,
  InterceptingCall,
  type Interceptor,
  type ServiceError,
  status,
} from "@grpc/grpc-js";

import { ErrorInfo } from "./gen/google/rpc/error_details.js";
import { Status } from "./gen/google/rpc/status.js";
import { type BackendStatus, MonitorState } from "./gen/localplane/v1/backend.js";
import {
  BackendServiceClient,
  type LoadModelResponse,
  type ShutdownBackendResponse,
} from "./gen/localplane/v1/backend_service.js";
import {
  type ChatCompletionChunk,
  ChatRequest,
  InferenceServiceClient,
} from "./gen/localplane/v1/inference_service.js";
import {
  ListModelsRequest,
  type ListModelsResponse,
  ModelServiceClient,
} from "./gen/localplane/v1/model_service.js";
import type { TokenMetrics } from "./gen/localplane/v1/token_metrics.js";
import { TokenMetricsServiceClient } from "./gen/localplane/v1/token_metrics_service.js";

// Loading is what takes long. Every call needs some limit, or a lost server is waited for without end.
const PATIENCE_MILLISECONDS = 5 * 60 * 1000;

async function main(): Promise<void> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      address: { type: "string", default: "127.0.0.1:50051" },
      model: { type: "string", default: "" },
    },
  });
  const question = positionals.join(" ") || "Say hello.";
  const plain = credentials.createInsecure();
  const options = { interceptors: [everyCall(process.env["LOCALPLANE_API_KEY"] ?? "")] };
  // Clients of one address share its connection.
  const models = new ModelServiceClient(values.address, plain, options);
  const backends = new BackendServiceClient(values.address, plain, options);
  const inference = new InferenceServiceClient(values.address, plain, options);
  const tokens = new TokenMetricsServiceClient(values.address, plain, options);
  try {
    const model = await pickModel(models, values.model);

    const loaded = await unary<LoadModelResponse>((done) => backends.loadModel({ model }, done));
    console.log(`load: ${loaded.message}`);

    await monitor(backends, model);
    await ask(inference, model, question);
    await countTokens(tokens, model);

    const stopped = await unary<ShutdownBackendResponse>((done) =>
      backends.shutdownBackend({ model, force: false }, done),
    );
    console.log(`stop: ${stopped.message} after ${stopped.seconds.toFixed(2)} s`);

    await expectNotLoaded(backends, model);
  } finally {
    for (const client of [models, backends, inference, tokens]) {
      client.close();
    }
  }
}

/** Prints the models and returns the name of the one to use. */
async function pickModel(models: ModelServiceClient, wanted: string): Promise<string> {
  const listed = await unary<ListModelsResponse>((done) =>
    models.listModels(ListModelsRequest.fromPartial({}), done),
  );
  for (const entry of listed.data) {
    console.log(`model: ${entry.id}`);
  }
  const first = listed.data[0];
  if (!wanted && !first) {
    throw new Error("there is no model: localplane models install smollm2");
  }
  return wanted || first!.id;
}

/** Prints what is known of the backend of a model. */
async function monitor(backends: BackendServiceClient, model: string): Promise<void> {
  const seen = await unary<BackendStatus>((done) => backends.getBackendStatus({ model }, done));
  console.log(`monitor: ${MonitorState[seen.state]}, process ${seen.pid}`);
  // What is not known is undefined.
  if (seen.memoryInfo) {
    console.log(`monitor: ${Math.floor(seen.memoryInfo.rss / 2 ** 20)} MiB resident`);
  }
}

/** Prints the answer to a question as it comes. */
async function ask(
  inference: InferenceServiceClient,
  model: string,
  question: string,
): Promise<void> {
  const stream = inference.chatStream(
    ChatRequest.fromPartial({
      model,
      messages: [{ role: "user", content: question }],
      maxTokens: 64,
      streamOptions: { includeUsage: true },
    }),
  );
  process.stdout.write("answer: ");
  for await (const chunk of stream as AsyncIterable<ChatCompletionChunk>) {
    for (const choice of chunk.choices) {
      process.stdout.write(choice.delta?.content ?? "");
    }
    if (chunk.usage) {
      const { promptTokens, completionTokens } = chunk.usage;
      console.log(`\nusage: ${promptTokens} tokens of the prompt, ${completionTokens} generated`);
    }
  }
}

/** Prints how many tokens went through a model. */
async function countTokens(tokens: TokenMetricsServiceClient, model: string): Promise<void> {
  try {
    const counted = await unary<TokenMetrics>((done) => tokens.getTokenMetrics({ model }, done));
    console.log(
      `tokens: ${counted.tokensGenerated} generated at ${counted.tokensPerSecond.toFixed(1)} per ` +
        `second, ${counted.total?.completionTokens} since ${counted.epoch?.toISOString()}`,
    );
  } catch (error) {
    if ((error as Partial<ServiceError>).code !== status.UNIMPLEMENTED) {
      throw error;
    }
    console.log("tokens: this service is too old to count them");
  }
}

/** Asks for a stopped model. Messages are for people and may change: a program goes by the reason. */
async function expectNotLoaded(backends: BackendServiceClient, model: string): Promise<void> {
  try {
    await monitor(backends, model);
  } catch (error) {
    if (reasonOf(error) !== "MODEL_NOT_LOADED") {
      throw error;
    }
    console.log("monitor: MODEL_NOT_LOADED, as it should be now");
    return;
  }
  throw new Error(`${model} is still loaded`);
}

/** Returns the reason that the service gives for an error, or "" for all else, such as a lost connection. */
function reasonOf(error: unknown): string {
  const [bytes] = (error as Partial<ServiceError>).metadata?.get("grpc-status-details-bin") ?? [];
  if (!(bytes instanceof Buffer)) {
    return "";
  }
  const info = Status.decode(bytes).details.find(
    (detail) => detail.typeUrl === "type.googleapis.com/google.rpc.ErrorInfo",
  );
  return info ? ErrorInfo.decode(info.value).reason : "";
}

/** Makes a promise of a call that has one answer. */
function unary<Response>(
  call: (done: (error: ServiceError | null, response: Response) => void) => unknown,
): Promise<Response> {
  return new Promise((resolve, reject) => {
    call((error, response) => (error ? reject(error) : resolve(response)));
  });
}

/** Gives every call a deadline and, where there is one, the API key. */
function everyCall(key: string): Interceptor {
  return (options, nextCall) =>
    new InterceptingCall(nextCall({ deadline: Date.now() + PATIENCE_MILLISECONDS, ...options }), {
      start(metadata, listener, next) {
        if (key) {
          metadata.set("authorization", `Bearer ${key}`);
        }
        next(metadata, listener);
      },
    });
}

main().catch((error: unknown) => {
  console.error(`error: ${error instanceof Error ? error.message : String(error)}`);
  process.exitCode = 1;
});
