// The floor of a start: Deno's first line of code.
Deno.stdout.writeSync(new Uint8Array(1));
setInterval(() => {}, 1000);
