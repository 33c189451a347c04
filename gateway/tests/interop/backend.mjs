// The backend that nodes ask where clients call `rpc`. Prints its address once it listens, and ends with its input.
import { createServer } from "node:http";

const answers = {
  // What was asked, and by whom.
  echo: ({ user, data }) => ({ result: { data: { user, data } } }),
  refuse: () => ({ error: { code: 1001, message: "not today" } }),
  "throw out": () => ({ disconnect: { code: 4501, reason: "go away" } }),
};

const server = createServer(async (request, response) => {
  const parts = await request.toArray();
  const question = JSON.parse(Buffer.concat(parts));
  const answer = answers[question.method] ?? (() => ({ error: { code: 404, message: "method not found" } }));
  response.setHeader("Content-Type", "application/json");
  response.end(JSON.stringify(answer(question)));
});
server.listen(0, "127.0.0.1", () => console.log(`http://127.0.0.1:${server.address().port}/rpc`));
process.stdin.resume().on("end", () => process.exit());
