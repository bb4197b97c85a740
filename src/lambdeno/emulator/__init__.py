"""The local Lambda: runs the zips that would be deployed, behind the APIs that Lambda has.

invoke_api ──► local_lambda ──► pool ──► environment ──► process, in a sandbox
function_url ──┘ (http_events)
                    └► events (asynchronous)     └► runtime_api ◄── the function's bootstrap
"""

from lambdeno.emulator.function import Cors, Function, FunctionUrl, host_architecture
from lambdeno.emulator.http_events import FORMS, Form
from lambdeno.emulator.invocation import Context, ResponseStream
from lambdeno.emulator.local_lambda import InvokeResult, LocalLambda, Streaming
from lambdeno.emulator.logs import ListSink, LogSink, StreamSink
from lambdeno.emulator.refusal import Refusal
from lambdeno.emulator.sandbox import Bubblewrap, PlainPaths, Sandbox, choose_sandbox
from lambdeno.emulator.serving import Handle, local_lambda
from lambdeno.emulator.settings import Settings

__all__ = [
    "FORMS",
    "Bubblewrap",
    "Context",
    "Cors",
    "Form",
    "Function",
    "FunctionUrl",
    "Handle",
    "InvokeResult",
    "ListSink",
    "LocalLambda",
    "LogSink",
    "PlainPaths",
    "Refusal",
    "ResponseStream",
    "Sandbox",
    "Settings",
    "StreamSink",
    "Streaming",
    "choose_sandbox",
    "host_architecture",
    "local_lambda",
]
