// What the suites share: the real binary and `curl --unix-socket`, set against a provider that is not ours.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, rmSync } from 'node:fs';
import { mkdtemp, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { after, before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { createLocalJWKSet, jwtVerify } from 'jose';

import { CLIENTS, startProvider } from './provider.mjs';

const BINARY = resolve(process.env.BURSAR_BINARY ?? join(import.meta.dirname, '../../../target/debug/bursar'));
const LIMIT = { timeout: 60_000 };
const SECRET = { mode: 0o600 };

/** The provider that the suite is run against, and what bursar has logged. */
export let provider;
export let log = '';

let services, directory, bursar;
const children = new Set();
export const file = (name) => join(directory, name);

function start(command, args, stdio) {
  const env = { ...process.env, BURSAR_SOCKET: file('bursar.sock'), BURSAR_ADMIN_SOCKET: file('admin.sock') };
  const child = spawn(command, args, { stdio, env });
  children.add(child);
  child.once('exit', () => children.delete(child));
  return child;
}

// However a suite ends, nothing that it started or wrote lives on.
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

export const cli = (...args) => run(BINARY, args);
export const grant = (what, service, user) => cli('grant', what, '--service', service, '--user', user);
export const importToken = (service, user, token) =>
  run(BINARY, ['grant', 'import', '--service', service, '--user', user, '--refresh-token-file', '-'], `${token}\n`);

/** The provider that a service's tokens come from. */
export const at = (service) => services[service].provider ?? provider;

/** A refresh token from a user's login, for one of the services. */
export function login(service, user, scopes) {
  const { client, audience } = services[service];
  return at(service).login({ user, audience, client, scopes });
}

/** A user who has logged in and whose grant is imported. */
export async function connect(service, user, scopes) {
  const imported = await importToken(service, user, await login(service, user, scopes));
  assert.equal(imported.code, 0, imported.stderr);
}

/** What one of bursar's sockets answers. */
export async function curl(socket, path, ...options) {
  const args = ['--silent', '--show-error', '--max-time', '30', '--write-out', '\n%{http_code}', ...options];
  const { code, stdout, stderr } = await run('curl', [...args, '--unix-socket', file(socket), `http://bursar${path}`]);
  assert.equal(code, 0, stderr);
  const end = stdout.lastIndexOf('\n');
  return { status: Number(stdout.slice(end + 1)), body: stdout.slice(0, end) };
}

export function ask(service, user, role, ...options) {
  const query = new URLSearchParams({ service, ...(user && { user }), ...(role && { role }) });
  return curl('bursar.sock', `/v1/token?${query}`, ...options);
}

/** What is vended, as JSON. */
export async function vend(service, user, role) {
  const { status, body } = await ask(service, user, role);
  assert.equal(status, 200, body);
  return JSON.parse(body);
}

/** What is vended once whatever keeps it from being so is over. */
export function eventually(what, seconds, service, user, role) {
  return until(what, seconds, async () => {
    const { status, body } = await ask(service, user, role);
    return status === 200 && JSON.parse(body);
  });
}

export async function refused(status, error, service, user, role) {
  const answer = await ask(service, user, role);
  assert.equal(answer.status, status, answer.body);
  const problem = JSON.parse(answer.body);
  assert.equal(problem.error, error);
  return problem;
}

/** What bursar's `POST /v1/introspect` says of a token. */
export async function introspect(token, ...fields) {
  const form = [`token=${token}`, ...fields].flatMap((field) => ['--data-urlencode', field]);
  const { status, body } = await curl('bursar.sock', '/v1/introspect', ...form);
  assert.equal(status, 200, body);
  return JSON.parse(body);
}

/** A token as `jose` reads it, by the provider's keys as they are now. */
export async function read(token, service) {
  const { audience, algorithm = 'RS256' } = services[service];
  const { issuer } = at(service);
  const keys = createLocalJWKSet(await (await fetch(`${issuer}/v1/keys`)).json());
  const expected = { issuer, audience, algorithms: [algorithm], requiredClaims: ['exp', 'iat'] };
  return jwtVerify(token, keys, expected);
}

/** Verifies a token as its service would. */
export async function verify(token, service, user, role = 'PUBLIC') {
  const { client, plain } = services[service];
  const { payload, protectedHeader } = await read(token, service);
  assert.equal(payload.sub, user);
  if (plain) {
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

/**
 * What some work brings, and how many refreshes it takes of these users' grants: others are refreshed ahead meanwhile.
 * Whose a refresh is that the provider refuses is not known; it counts.
 */
export async function counting(work, ...users) {
  const earlier = provider.refreshes.length;
  const result = await work();
  const theirs = ({ user }) => user === undefined || users.length === 0 || users.includes(user);
  return [provider.refreshes.slice(earlier).filter(theirs).length, result];
}

/** A promise that somebody else keeps. */
export function deferred() {
  let resolve;
  const promise = new Promise((keep) => (resolve = keep));
  return { promise, resolve };
}

/** Waits for something that comes about by itself. */
export async function until(what, seconds, look) {
  const deadline = Date.now() + seconds * 1000;
  for (;;) {
    const found = await look();
    if (found) return found;
    assert.ok(Date.now() < deadline, `${what}: not within ${seconds} s`);
    await sleep(100);
  }
}

export async function startBursar() {
  bursar = start(BINARY, ['serve', '--config', file('bursar.toml')], ['ignore', 'pipe', 'pipe']);
  for (const stream of [bursar.stdout, bursar.stderr]) stream.setEncoding('utf8').on('data', (part) => (log += part));
  await until('bursar is up', 20, async () => {
    assert.equal(bursar.exitCode, null, log);
    return existsSync(file('admin.sock')) && (await cli('grant', 'list')).code === 0;
  });
}

export async function stopBursar(signal) {
  const ended = once(bursar, 'exit');
  bursar.kill(signal);
  const [code] = await ended;
  if (signal === 'SIGTERM') assert.equal(code, 0);
}

/** No refresh token that rotates away has ever been presented twice. */
export function assertNothingTwice() {
  // What is refused uses nothing up, and a used-up one that is refused shows among the reused.
  const taken = provider.refreshes.filter(({ client, error }) => client !== 'persistent' && !error);
  assert.equal(new Set(taken.map((one) => one.refresh_token)).size, taken.length);
  assert.deepEqual(provider.reused, []);
}

/** Writes what a client proves who it is with; a key as `type`: pkcs8, pkcs1 or sec1. */
export async function writeCredential(client, type) {
  const { secret, key } = provider.credentials[client];
  await writeFile(file(`${client}.secret`), key ? key.export({ type, format: 'pem' }) : secret, SECRET);
}

/** Runs a suite with a provider and a bursar of its own, with these services and the servers that `configure` names. */
export function prepare(suite, configure) {
  services = suite;
  before(async () => {
    assert.ok(existsSync(BINARY), `no binary at ${BINARY}: build it, or set BURSAR_BINARY`);
    provider = await startProvider();
    directory = await mkdtemp(join(tmpdir(), 'bursar-peer-'));
    const key = await cli('key', 'generate');
    await writeFile(file('store.key'), key.stdout, SECRET);
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
    for (const [name, { client, issuer = provider.issuer, more = '' }] of Object.entries(await configure())) {
      settings += `
[authorization_servers.${name}]
issuer = "${issuer}"
client_id = "${client}"
refresh_token_leeway = "0s"
${more}
`;
    }
    for (const [name, { client, server = client, audience, more = '' }] of Object.entries(services)) {
      settings += `
[services.${name}]
authorization_server = "${server}"
audience = "${audience}"
${more.includes('scopes =') ? '' : 'scopes = ["session:role:PUBLIC"]\nroles = ["PUBLIC", "ANALYST"]'}
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
}

/** A test that shows what bursar logged if it fails. */
export function check(name, body, options) {
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

/** Nothing that proves anything has been logged. */
export function assertNothingLogged() {
  assert.ok(log.includes('@example.com'), 'the log is there');
  const secrets = [
    ...provider.refreshes.map((one) => one.refresh_token),
    ...Object.values(CLIENTS).map((client) => client.secret),
    ...Object.values(provider.credentials).map((credential) => credential.secret),
  ];
  // The head of a JWT; three letters alone may stand in a request's id.
  const leaks = (line) => secrets.some((secret) => secret && line.includes(secret)) || /eyJ[\w-]{16}/.test(line);
  assert.deepEqual(log.split('\n').filter(leaks), []);
}
