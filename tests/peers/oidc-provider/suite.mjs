// The real binary and `curl --unix-socket` against a provider that is not ours. See README.md.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, rmSync } from 'node:fs';
import { mkdtemp, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { after, before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { createLocalJWKSet, decodeProtectedHeader, jwtVerify } from 'jose';

import { AUDIENCES, BRIEF, CLIENTS, startProvider } from './provider.mjs';

const BINARY = resolve(process.env.BURSAR_BINARY ?? join(import.meta.dirname, '../../../target/debug/bursar'));
const LIMIT = { timeout: 60_000 };

/** The services as bursar is told of them. */
const SERVICES = {
  snowflake: { client: 'rotating', audience: AUDIENCES.okta, more: 'kind = "snowflake"' },
  plain: { client: 'persistent', audience: AUDIENCES.plain, more: '' },
  opaque: { client: 'rotating', audience: AUDIENCES.opaque, more: 'access_token = "opaque"' },
  brief: { client: 'rotating', audience: AUDIENCES.brief, more: '' },
};

let provider, directory, bursar;
let log = '';
const children = new Set();
const file = (name) => join(directory, name);

function start(command, args, stdio) {
  const env = { ...process.env, BURSAR_SOCKET: file('bursar.sock'), BURSAR_ADMIN_SOCKET: file('admin.sock') };
  const child = spawn(command, args, { stdio, env });
  children.add(child);
  child.once('exit', () => children.delete(child));
  return child;
}

// However the suite ends, nothing that it started or wrote lives on.
process.once('exit', () => {
  children.forEach((child) => child.kill('SIGKILL'));
  if (directory) rmSync(directory, { recursive: true, force: true });
});
for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => process.exit(1));

async function run(command, args, input = '') {
  const child = start(command, args, 'pipe');
  const text = { stdout: '', stderr: '' };
  for (const name of ['stdout', 'stderr']) child[name].setEncoding('utf8').on('data', (part) => (text[name] += part));
  child.stdin.on('error', () => {}).end(input);
  const [code] = await once(child, 'close');
  return { code, ...text };
}

const cli = (...args) => run(BINARY, args);
const grant = (what, service, user) => cli('grant', what, '--service', service, '--user', user);
const importToken = (service, user, token) =>
  run(BINARY, ['grant', 'import', '--service', service, '--user', user, '--refresh-token-file', '-'], `${token}\n`);

/** A user who has logged in and whose grant is imported. */
async function connect(service, user, scopes) {
  const { client, audience } = SERVICES[service];
  const imported = await importToken(service, user, await provider.login({ user, audience, client, scopes }));
  assert.equal(imported.code, 0, imported.stderr);
}

async function ask(service, user, role, ...options) {
  const query = new URLSearchParams({ service, user, ...(role && { role }) });
  const args = ['--silent', '--show-error', '--max-time', '30', '--write-out', '\n%{http_code}', ...options];
  const url = `http://bursar/v1/token?${query}`;
  const { code, stdout, stderr } = await run('curl', [...args, '--unix-socket', file('bursar.sock'), url]);
  assert.equal(code, 0, stderr);
  const end = stdout.lastIndexOf('\n');
  return { status: Number(stdout.slice(end + 1)), body: stdout.slice(0, end) };
}

/** What is vended, as JSON. */
async function vend(service, user, role) {
  const { status, body } = await ask(service, user, role);
  assert.equal(status, 200, body);
  return JSON.parse(body);
}

async function refused(status, error, service, user, role) {
  const answer = await ask(service, user, role);
  assert.equal(answer.status, status, answer.body);
  const problem = JSON.parse(answer.body);
  assert.equal(problem.error, error);
  return problem;
}

/** Verifies a token as its service would, by the provider's keys as they are now. */
async function verify(token, service, user, role = 'PUBLIC') {
  const { client, audience } = SERVICES[service];
  const keys = createLocalJWKSet(await (await fetch(`${provider.issuer}/v1/keys`)).json());
  const expected = { issuer: provider.issuer, audience, algorithms: ['RS256'], requiredClaims: ['exp', 'iat'] };
  const { payload, protectedHeader } = await jwtVerify(token, keys, expected);
  assert.equal(payload.sub, user);
  if (service === 'plain') {
    assert.equal(payload.scope, `session:role:${role}`);
    assert.equal(payload.client_id, client);
    assert.equal(payload.scp ?? payload.cid, undefined);
  } else {
    assert.deepEqual(payload.scp, [`session:role:${role}`]);
    assert.equal(payload.cid, client);
    assert.equal(payload.scope ?? payload.client_id, undefined);
  }
  return protectedHeader;
}

/** How many refreshes the provider saw while `work` went on, and what `work` gave. */
async function counting(work) {
  const earlier = provider.refreshes.length;
  const result = await work();
  return [provider.refreshes.length - earlier, result];
}

/** Waits for something that comes about by itself. */
async function until(what, seconds, look) {
  const deadline = Date.now() + seconds * 1000;
  for (;;) {
    const found = await look();
    if (found) return found;
    assert.ok(Date.now() < deadline, `${what}: not within ${seconds} s`);
    await sleep(100);
  }
}

async function startBursar() {
  bursar = start(BINARY, ['serve', '--config', file('bursar.toml')], ['ignore', 'pipe', 'pipe']);
  for (const stream of [bursar.stdout, bursar.stderr]) stream.setEncoding('utf8').on('data', (part) => (log += part));
  await until('bursar is up', 20, async () => {
    assert.equal(bursar.exitCode, null, log);
    return existsSync(file('admin.sock')) && (await cli('grant', 'list')).code === 0;
  });
}

async function stopBursar(signal) {
  const ended = once(bursar, 'exit');
  bursar.kill(signal);
  const [code] = await ended;
  if (signal === 'SIGTERM') assert.equal(code, 0);
}

/** No refresh token that rotates away has ever been presented twice. */
function assertNothingTwice() {
  // What is refused uses nothing up, and a used-up one that is refused shows among the revoked.
  const taken = provider.refreshes.filter(({ client, error }) => client === 'rotating' && !error);
  assert.equal(new Set(taken.map((one) => one.refresh_token)).size, taken.length);
  assert.deepEqual(provider.revoked, []);
}

before(async () => {
  assert.ok(existsSync(BINARY), `no binary at ${BINARY}: build it, or set BURSAR_BINARY`);
  provider = await startProvider();
  directory = await mkdtemp(join(tmpdir(), 'bursar-peer-'));
  const secret = { mode: 0o600 };
  const key = await cli('key', 'generate');
  await writeFile(file('store.key'), key.stdout, secret);
  let settings = `
[socket]
path = "${file('bursar.sock')}"
[admin]
path = "${file('admin.sock')}"
metrics = "127.0.0.1:0"
[store]
url = "sqlite://${file('bursar.db')}"
key_file = "${file('store.key')}"
[log]
format = "text"
[[callers]]
uid = ${process.getuid()}
services = ["*"]
users = ["*@example.com"]
run_pass = "none"
`;
  for (const [client, text] of Object.entries(CLIENTS)) {
    await writeFile(file(`${client}.secret`), text, secret);
    settings += `
[authorization_servers.${client}]
issuer = "${provider.issuer}"
client_id = "${client}"
client_secret_file = "${file(`${client}.secret`)}"
refresh_token_leeway = "0s"
`;
  }
  for (const [name, { client, audience, more }] of Object.entries(SERVICES)) {
    settings += `
[services.${name}]
authorization_server = "${client}"
audience = "${audience}"
scopes = ["session:role:PUBLIC"]
roles = ["PUBLIC", "ANALYST"]
${more}
`;
  }
  await writeFile(file('bursar.toml'), settings);
  await startBursar();
}, LIMIT);

after(async () => {
  for (const child of children) {
    const ended = once(child, 'exit');
    child.kill('SIGKILL');
    await ended;
  }
  await provider?.stop();
}, LIMIT);

/** A test that shows what bursar logged if it fails. */
function check(name, body, options) {
  test(name, { ...LIMIT, ...options }, async () => {
    const earlier = log.length;
    try {
      await body();
    } catch (error) {
      console.error(log.slice(earlier));
      throw error;
    }
  });
}

check('an imported grant gives tokens, each down-scoped to its role', async () => {
  const user = 'alice@example.com';
  await connect('snowflake', user);
  for (const role of [undefined, 'PUBLIC', 'ANALYST']) {
    const answer = await vend('snowflake', user, role);
    assert.equal(answer.token_type, 'Bearer');
    assert.equal(answer.scope, `session:role:${role ?? 'PUBLIC'}`);
    assert.ok(answer.expires_in > 3500 && answer.expires_in <= 3600, `${answer.expires_in}`);
    await verify(answer.access_token, 'snowflake', user, role);
    const text = await ask('snowflake', user, role, '--header', 'Accept: text/plain');
    assert.deepEqual(text, { status: 200, body: answer.access_token });
  }
});

check("`scope` and `client_id` in place of Okta's claims, and a refresh token that persists", async () => {
  const user = 'alice@example.com';
  const token = await provider.login({ user, audience: AUDIENCES.plain, client: 'persistent' });
  assert.equal((await importToken('plain', user, token)).code, 0);
  for (const role of [undefined, 'ANALYST']) {
    await verify((await vend('plain', user, role)).access_token, 'plain', user, role);
  }
  const [refreshes, refreshed] = await counting(() => grant('refresh', 'plain', user));
  assert.equal(refreshed.code, 0, refreshed.stderr);
  assert.equal(refreshes, 1);
  assert.match(refreshed.stdout, /refresh_tokens +persistent/);
  assert.equal(provider.refreshes.at(-1).refresh_token, token);
});

check('an opaque token is handed on as the provider made it', async () => {
  const user = 'alice@example.com';
  await connect('opaque', user);
  for (const role of ['PUBLIC', 'ANALYST']) {
    const { access_token, expires_in } = await vend('opaque', user, role);
    const found = await (await provider.post('/v1/introspect', { token: access_token })).json();
    assert.equal(found.active, true);
    assert.equal(found.sub, user);
    assert.equal(found.aud, AUDIENCES.opaque);
    assert.equal(found.scope, `session:role:${role}`);
    assert.ok(Math.abs(found.exp - Date.now() / 1000 - expires_in) < 5);
  }
});

check('each refresh presents the refresh token of the one before', async () => {
  const user = 'rita@example.com';
  await connect('snowflake', user);
  const tokens = new Set([(await vend('snowflake', user)).access_token]);
  for (let time = 0; time < 4; time++) {
    const refreshed = await grant('refresh', 'snowflake', user);
    assert.equal(refreshed.code, 0, refreshed.stderr);
    assert.match(refreshed.stdout, /refresh_tokens +rotating/);
    const { access_token } = await vend('snowflake', user);
    await verify(access_token, 'snowflake', user);
    tokens.add(access_token);
  }
  assert.equal(tokens.size, 5, 'a new one each time');
  assertNothingTwice();
});

check('fifty first requests at once cost one token request', async () => {
  const user = 'fifty@example.com';
  await connect('snowflake', user);
  const all = Array.from({ length: 50 }, () => vend('snowflake', user, 'ANALYST'));
  const [refreshes, answers] = await counting(() => Promise.all(all));
  assert.equal(refreshes, 1);
  assert.equal(new Set(answers.map((answer) => answer.access_token)).size, 1);
  await verify(answers[0].access_token, 'snowflake', user, 'ANALYST');
});

check("another user's refresh token gives nothing, and is not lost", async () => {
  const [user, other] = ['mia@example.com', 'tom@example.com'];
  const token = await provider.login({ user: other, audience: AUDIENCES.okta });
  const [refreshes, wrong] = await counting(() => importToken('snowflake', user, token));
  assert.equal(wrong.code, 1);
  assert.match(wrong.stderr, /user_mismatch/);
  assert.match(wrong.stderr, new RegExp(`user: ${other}`));
  assert.equal(refreshes, 1);
  for (const nobody of [user, other]) {
    assert.equal((await refused(409, 'login_required', 'snowflake', nobody)).reason, 'never_connected');
  }
  // The token is used up at the provider; what came for it has been kept.
  const [again, right] = await counting(() => importToken('snowflake', other, token));
  assert.equal(right.code, 0, right.stderr);
  assert.equal(again, 0);
  await verify((await vend('snowflake', other)).access_token, 'snowflake', other);
  await verify((await vend('snowflake', other, 'ANALYST')).access_token, 'snowflake', other, 'ANALYST');
  assertNothingTwice();
});

check('a role that the user has not granted', async () => {
  const user = 'carol@example.com';
  await connect('snowflake', user, ['session:role:PUBLIC']);
  assert.equal((await refused(409, 'login_required', 'snowflake', user, 'ANALYST')).reason, 'role_not_granted');
  await verify((await vend('snowflake', user)).access_token, 'snowflake', user);
});

check('a refresh token that the provider does not know', async () => {
  const garbage = await importToken('snowflake', 'nina@example.com', 'no-refresh-token-of-anybody');
  assert.equal(garbage.code, 75);
  assert.match(garbage.stderr, /login_required/);
  assert.equal(provider.refreshes.at(-1).error, 'invalid_grant');
  assert.equal((await refused(409, 'login_required', 'snowflake', 'nina@example.com')).reason, 'never_connected');
  await connect('snowflake', 'nina@example.com');
});

for (const signal of ['SIGTERM', 'SIGKILL']) {
  check(`after ${signal} the same tokens are vended, without a token request`, async () => {
    const user = `${signal.toLowerCase()}@example.com`;
    const roles = [undefined, 'ANALYST'];
    const tokens = () => Promise.all(roles.map(async (role) => (await vend('snowflake', user, role)).access_token));
    await connect('snowflake', user);
    const earlier = await tokens();
    const [refreshes, later] = await counting(async () => {
      await stopBursar(signal);
      await startBursar();
      return tokens();
    });
    assert.equal(refreshes, 0);
    assert.deepEqual(later, earlier);
    assert.equal((await grant('refresh', 'snowflake', user)).code, 0);
    assertNothingTwice();
  });
}

/** Kills bursar once its token request has come to where `fault` calls the function that it is given. */
async function killInExchange(user, fault) {
  const reached = new Promise((resolve) => (provider.faults['/v1/token'] = fault(resolve)));
  const asked = grant('refresh', 'snowflake', user);
  await reached;
  await stopBursar('SIGKILL');
  delete provider.faults['/v1/token'];
  await asked;
  await startBursar();
}

check('killed before its request was heard: the provider is asked, and the grant lives', async () => {
  const user = 'before@example.com';
  await connect('snowflake', user);
  const asked = provider.requests['/v1/introspect'];
  await killInExchange(user, (reached) => () => reached());
  const shown = async () => (await grant('show', 'snowflake', user)).stdout;
  await until('the doubt is over', 10, async () => /in_doubt_since +-/.test(await shown()));
  assert.equal(provider.requests['/v1/introspect'], asked + 1);
  await verify((await vend('snowflake', user, 'ANALYST')).access_token, 'snowflake', user, 'ANALYST');
  assertNothingTwice();
});

check('killed before the answer came: the used-up refresh token is not presented again', async () => {
  const user = 'after@example.com';
  await connect('snowflake', user);
  await killInExchange(user, (reached) => (req, res, pass) => {
    res.end = reached;
    pass();
  });
  const shown = async () => (await grant('show', 'snowflake', user)).stdout;
  await until('the loss is known', 10, async () => /state +lost/.test(await shown()));
  assert.equal((await refused(409, 'login_required', 'snowflake', user)).reason, 'lost');
  assertNothingTwice();
  await connect('snowflake', user);
  await verify((await vend('snowflake', user)).access_token, 'snowflake', user);
});

check('requests that the provider did not act on are made again once it says so', async () => {
  const faults = {
    cut: (req) => req.socket.destroy(),
    page: (req, res) => res.writeHead(503, { 'content-type': 'text/html' }).end('<html>'),
    reset: (req) => req.socket.resetAndDestroy(),
  };
  for (const [name, fault] of Object.entries(faults)) {
    const user = `${name}@example.com`;
    await connect('snowflake', user);
    provider.faults['/v1/token'] = (req, res) => {
      delete provider.faults['/v1/token'];
      fault(req, res);
    };
    const [refreshes, answer] = await counting(() => vend('snowflake', user, 'ANALYST'));
    assert.equal(refreshes, 1);
    await verify(answer.access_token, 'snowflake', user, 'ANALYST');
  }
  assertNothingTwice();
});

check('while the keys can not be had nothing is vended, and nothing is lost', async () => {
  const user = 'keys@example.com';
  await connect('snowflake', user);
  await stopBursar('SIGTERM');
  provider.faults['/v1/keys'] = (req, res) => res.writeHead(500).end();
  await startBursar();
  const importing = 'keyless@example.com';
  const token = await provider.login({ user: importing, audience: AUDIENCES.okta });
  const [refreshes] = await counting(async () => {
    assert.equal((await importToken('snowflake', importing, token)).code, 69);
    for (let time = 0; time < 3; time++) {
      await refused(503, 'authorization_server_unavailable', 'snowflake', user, 'ANALYST');
    }
    // What had been verified before still counts.
    await vend('snowflake', user);
    delete provider.faults['/v1/keys'];
    const answer = await until('the keys are there', 10, async () => {
      const { status, body } = await ask('snowflake', user, 'ANALYST');
      return status === 200 && JSON.parse(body);
    });
    await verify(answer.access_token, 'snowflake', user, 'ANALYST');
    assert.equal((await importToken('snowflake', importing, token)).code, 0);
    await verify((await vend('snowflake', importing)).access_token, 'snowflake', importing);
  });
  assert.equal(refreshes, 2, 'one each: the tokens that came waited for the keys');
  assertNothingTwice();
});

check('a token that the provider signed but nobody asked for is not vended, and the grant lives', async () => {
  const forgeries = {
    user: ({ payload }) => (payload.sub = 'alice@example.com'),
    more: ({ payload }) => payload.scp.push('session:role:PUBLIC'),
    less: ({ payload }) => (payload.scp = []),
    role: ({ payload }) => (payload.scp = ['session:role:PUBLIC']),
    client: ({ payload }) => (payload.cid = 'persistent'),
    audience: ({ payload }) => (payload.aud = AUDIENCES.plain),
    issuer: ({ payload }) => (payload.iss += '/'),
    expired: ({ payload }) => (payload.exp = payload.iat - 3600),
    nameless: (jwt) => (jwt.header = { kid: undefined }),
  };
  const attempt = async ([name, forge]) => {
    const user = `${name}@example.com`;
    await connect('snowflake', user);
    provider.forgeries[user] = forge;
    const { hint } = await refused(502, 'token_invalid', 'snowflake', user, 'ANALYST');
    assert.ok(hint, name);
    delete provider.forgeries[user];
    // It is not asked for again at once.
    const answer = await until(`${name} is over`, 10, async () => {
      const { status, body } = await ask('snowflake', user, 'ANALYST');
      return status === 200 && JSON.parse(body);
    });
    await verify(answer.access_token, 'snowflake', user, 'ANALYST');
  };
  await Promise.all(Object.entries(forgeries).map(attempt));
  assertNothingTwice();
});

check('short-lived tokens are renewed ahead while they are in demand', async () => {
  const user = 'brief@example.com';
  await connect('brief', user);
  const end = Date.now() + 2.5 * BRIEF * 1000;
  const tokens = new Set();
  const worker = async (role) => {
    while (Date.now() < end) {
      const { access_token } = await vend('brief', user, role);
      await verify(access_token, 'brief', user, role);
      tokens.add(access_token);
      await sleep(50);
    }
  };
  await Promise.all([undefined, 'ANALYST', 'ANALYST'].map(worker));
  assert.ok(tokens.size >= 6 && tokens.size <= 12, `two kinds of token, three to six of each: ${tokens.size}`);
  assertNothingTwice();
});

check('the key that was published ahead takes over', async () => {
  const user = 'next@example.com';
  await connect('snowflake', user);
  const old = decodeProtectedHeader((await vend('snowflake', user)).access_token).kid;
  const fetches = provider.requests['/v1/keys'];
  provider.useNextKey();
  assert.equal((await grant('refresh', 'snowflake', user)).code, 0);
  const { access_token } = await vend('snowflake', user);
  assert.equal(provider.requests['/v1/keys'], fetches, 'known already');
  const { kid } = await verify(access_token, 'snowflake', user);
  assert.equal(kid, provider.activeKey());
  assert.notEqual(kid, old);
});

check('a key that nobody announced: its token waits, and is vended once the key is known', async () => {
  const user = 'new@example.com';
  await connect('snowflake', user);
  provider.useUnannouncedKey();
  // Keys are fetched at most every 30 s, whatever tokens name.
  const [refreshes, answer] = await counting(() =>
    until('the new key is known', 45, async () => {
      const { status, body } = await ask('snowflake', user, 'ANALYST');
      if (status === 200) return JSON.parse(body);
      assert.equal(JSON.parse(body).error, 'authorization_server_unavailable', body);
      await sleep(400);
      return undefined;
    }),
  );
  assert.equal(refreshes, 1);
  assert.equal((await verify(answer.access_token, 'snowflake', user, 'ANALYST')).kid, provider.activeKey());
  // Whatever was signed with the key before still is what it was.
  await verify((await vend('snowflake', user)).access_token, 'snowflake', user);
});

check(
  'many imports at once do not hold up a token for somebody else',
  async () => {
    const user = 'patient@example.com';
    await connect('snowflake', user);
    const tokens = [];
    for (let n = 0; n < 32; n++) {
      const importing = `many${n}@example.com`;
      tokens.push([importing, await provider.login({ user: importing, audience: AUDIENCES.okta })]);
    }
    const imports = tokens.map(([importing, token]) => importToken('snowflake', importing, token));
    const isFirst = ({ refresh_token }) => refresh_token === tokens[0][1];
    await until('they are under way', 5, () => provider.refreshes.some(isFirst));
    await sleep(300);
    const asked = Date.now();
    await vend('snowflake', user, 'ANALYST');
    const took = Date.now() - asked;
    for (const { code, stderr } of await Promise.all(imports)) assert.equal(code, 0, stderr);
    assert.ok(took < 1500, `${took} ms`);
  },
);

check('a grant that somebody else has ruined or revoked: login_required, and a new one works', async () => {
  assertNothingTwice();
  const ruin = {
    // The provider ends a grant at once when a consumed refresh token is presented: what every test above relies on.
    async 'reuse@example.com'(token) {
      const again = await provider.post('/v1/token', { grant_type: 'refresh_token', refresh_token: token });
      assert.equal((await again.json()).error, 'invalid_grant');
    },
    async 'revoke@example.com'(token, user) {
      assert.equal((await provider.post('/v1/revoke', { token: provider.newestRefreshToken(user) })).status, 200);
    },
  };
  for (const [user, act] of Object.entries(ruin)) {
    const token = await provider.login({ user, audience: AUDIENCES.okta });
    assert.equal((await importToken('snowflake', user, token)).code, 0);
    await act(token, user);
    const refreshed = await grant('refresh', 'snowflake', user);
    assert.equal(refreshed.code, 75, refreshed.stderr);
    const [refreshes, problem] = await counting(() => refused(409, 'login_required', 'snowflake', user));
    assert.equal(problem.reason, 'revoked');
    assert.equal(refreshes, 0, 'what is known to be dead is not presented');
    await connect('snowflake', user);
    await verify((await vend('snowflake', user)).access_token, 'snowflake', user);
  }
  assert.equal(provider.revoked.length, Object.keys(ruin).length);
});

check(
  'a token that is imported twice at once is presented once',
  async () => {
    const user = 'twice@example.com';
    const token = await provider.login({ user, audience: AUDIENCES.okta });
    const imports = [0, 1].map(() => importToken('snowflake', user, token));
    const [refreshes] = await counting(() => Promise.all(imports));
    assert.equal(refreshes, 1);
    assert.equal((await grant('refresh', 'snowflake', user)).code, 0);
  },
);

check(
  'a token that is imported again, as by a script that runs again, does not end its own grant',
  async () => {
    const user = 'again@example.com';
    const token = await provider.login({ user, audience: AUDIENCES.okta });
    assert.equal((await importToken('snowflake', user, token)).code, 0);
    await importToken('snowflake', user, token);
    assert.equal((await grant('refresh', 'snowflake', user)).code, 0);
  },
);

check('no token and no secret is in the log', async () => {
  assert.ok(log.includes('alice@example.com'), 'the log is there');
  const secrets = [...provider.refreshes.map((one) => one.refresh_token), ...Object.values(CLIENTS)];
  // The head of a JWT; three letters alone may stand in a request's id.
  const leaks = (line) => secrets.some((secret) => line.includes(secret)) || /eyJ[\w-]{16}/.test(line);
  assert.deepEqual(log.split('\n').filter(leaks), []);
});
