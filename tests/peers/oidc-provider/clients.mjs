// bursar as a client of the provider: how it proves who it is, what tokens may be signed with, where it asks, and what
// it asks for itself. See README.md.

import assert from 'node:assert/strict';
import { after } from 'node:test';
import { decodeJwt, decodeProtectedHeader } from 'jose';

import {
  assertNothingLogged,
  assertNothingTwice,
  at,
  check,
  cli,
  connect,
  eventually,
  file,
  grant,
  importToken,
  introspect,
  login,
  prepare,
  provider,
  read,
  refused,
  startBursar,
  stopBursar,
  until,
  vend,
  verify,
  writeCredential,
} from './harness.mjs';
import { ASSERTION_TYPE, AUDIENCES, CLIENTS, generateKey, startProvider } from './provider.mjs';

/** The services as bursar is told of them; some clients have two registrations, for different tokens. */
const SERVICES = {
  rsa: { client: 'rsa', audience: AUDIENCES.okta },
  ec: { client: 'ec', audience: AUDIENCES.okta },
  post: { client: 'post', audience: AUDIENCES.okta },
  public: { client: 'public', audience: AUDIENCES.okta },
  ps256: { client: 'rotating', server: 'modern', audience: AUDIENCES.ps256, algorithm: 'PS256' },
  es256: { client: 'rotating', server: 'modern', audience: AUDIENCES.es256, algorithm: 'ES256' },
  eddsa: { client: 'rotating', server: 'modern', audience: AUDIENCES.eddsa, algorithm: 'EdDSA' },
  // Where only RS256 is expected, as by default.
  okta: { client: 'persistent', audience: AUDIENCES.okta },
  // At a provider that does not say where it is asked.
  hidden: { client: 'rotating', server: 'hidden', audience: AUDIENCES.okta },
  bare: { client: 'post', server: 'bare', audience: AUDIENCES.okta },
  reports: {
    client: 'machine',
    audience: AUDIENCES.reports,
    more: 'grant = "client_credentials"\nscopes = ["reports"]\nroles = ["audits"]\nrole_scope = "{role}"',
  },
  mistaken: {
    client: 'mistaken',
    audience: AUDIENCES.reports,
    more: 'grant = "client_credentials"\nscopes = ["reports"]',
  },
};

/** A provider that answers nobody who looks for its metadata. */
let hidden;

prepare(SERVICES, async () => {
  hidden = await startProvider();
  for (const path of hidden.discovery) hidden.faults[path] = (req, res) => res.writeHead(500).end();
  SERVICES.hidden.provider = SERVICES.bare.provider = hidden;
  await writeCredential('rsa', 'pkcs8');
  await writeCredential('ec', 'sec1');
  for (const client of ['rotating', 'persistent', 'post', 'machine', 'mistaken']) await writeCredential(client);
  const secret = (client) => `client_secret_file = "${file(`${client}.secret`)}"`;
  const key = (client) => `private_key_file = "${file(`${client}.secret`)}"`;
  const endpoints = (names) => Object.entries(names).map(([name, path]) => `${name} = "${hidden.issuer}${path}"`);
  const bare = { token_endpoint: '/v1/token', jwks_uri: '/v1/keys' };
  const all = { ...bare, introspection_endpoint: '/v1/introspect', revocation_endpoint: '/v1/revoke' };
  const servers = {
    rsa: ['client_authentication = "private_key_jwt"', key('rsa'), `private_key_id = "${CLIENTS.rsa.kid}"`],
    ec: [key('ec')],
    post: ['client_authentication = "client_secret_post"', secret('post')],
    public: ['client_authentication = "none"'],
    modern: [secret('rotating'), 'signing_algorithms = ["PS256", "ES256", "EdDSA"]'],
    persistent: [secret('persistent')],
    hidden: [secret('rotating'), ...endpoints(all)],
    bare: ['client_authentication = "client_secret_post"', secret('post'), ...endpoints(bare)],
    machine: [secret('machine')],
    mistaken: [secret('mistaken')],
  };
  const clients = { modern: 'rotating', hidden: 'rotating', bare: 'post' };
  return Object.fromEntries(
    Object.entries(servers).map(([name, lines]) => {
      const { issuer } = ['hidden', 'bare'].includes(name) ? hidden : provider;
      // What is in doubt is asked for after this time.
      const more = ['request_timeout = "2s"', ...lines].join('\n');
      return [name, { client: clients[name] ?? name, issuer, more }];
    }),
  );
});
after(() => hidden?.stop());

/** What bursar asked of the provider as this client. */
const calls = (client, where = provider) => where.calls.filter((call) => call.client === client && !call.byHand);

/** The next request for tokens never arrives. */
function loseOneRequest(where = provider) {
  where.faults['/v1/token'] = (req) => {
    delete where.faults['/v1/token'];
    req.socket.destroy();
  };
}

/** A grant's whole life, with everything in it that is asked of the provider. */
async function live(service) {
  const { client } = SERVICES[service];
  const user = `live-${service}@example.com`;
  const where = at(service);
  await connect(service, user);
  await verify((await vend(service, user)).access_token, service, user);
  loseOneRequest(where);
  await verify((await vend(service, user, 'ANALYST')).access_token, service, user, 'ANALYST');
  const refreshed = await grant('refresh', service, user);
  assert.equal(refreshed.code, 0, refreshed.stderr);
  assert.match(refreshed.stdout, /refresh_tokens +rotating/);
  const token = where.newestRefreshToken(user);
  const lives = async () => (await (await where.post('/v1/introspect', { token }, client)).json()).active;
  assert.equal(await lives(), true);
  const revoked = await grant('revoke', service, user);
  assert.deepEqual(revoked, { code: 0, stdout: `${service} of ${user}: revoked\n`, stderr: '' });
  assert.equal(await lives(), false);
  assert.equal((await refused(409, 'login_required', service, user)).reason, 'revoked');
  const made = calls(client, where);
  const count = (path) => made.filter((call) => call.path === path).length;
  // Proof, role and refresh; the revocation; the doubt, and, if its time had come, the question when the grant ends.
  assert.deepEqual([count('/v1/token'), count('/v1/revoke')], [3, 1]);
  assert.ok([1, 2].includes(count('/v1/introspect')), `${count('/v1/introspect')} introspections`);
  for (const call of made) assert.equal(call.refusal, undefined);
  return made;
}

for (const client of ['rsa', 'ec']) {
  check(`private_key_jwt: whatever is asked is asked with an assertion for that, ${CLIENTS[client].alg}`, async () => {
    const made = await live(client);
    for (const { path, authorization, secret, assertion } of made) {
      assert.deepEqual([authorization, secret], [undefined, undefined], 'one proof at a time');
      const { alg, kid } = CLIENTS[client];
      assert.deepEqual(decodeProtectedHeader(assertion), { alg, typ: 'JWT', ...(kid && { kid }) });
      const { iss, sub, aud, exp, jti, ...more } = decodeJwt(assertion);
      assert.deepEqual({ iss, sub, aud }, { iss: client, sub: client, aud: `${provider.issuer}${path}` });
      const left = exp - Date.now() / 1000;
      assert.ok(left > 0 && left <= 300, `${left}`);
      assert.match(jti, /^.{16,}$/);
      assert.deepEqual(more, {});
    }
    assert.equal(new Set(made.map(({ assertion }) => decodeJwt(assertion).jti)).size, made.length);
  });
}

check('an assertion is good once, for the provider, while it lasts: the provider sees to it itself', async () => {
  for (const client of ['rsa', 'ec']) {
    const used = calls(client).find((call) => call.path === '/v1/token').assertion;
    const stranger = { key: generateKey(CLIENTS[client].alg).privateKey };
    const cases = [
      ['/v1/token', used, 'client assertion tokens must only be used once'],
      ['/v1/introspect', used, 'client assertion tokens must only be used once'],
      ['/v1/token', await provider.assertion(client, '/v1/elsewhere'), /^audience \(aud\) must equal/],
      ['/v1/token', await provider.assertion(client, '/v1/token', { exp: 1_700_000_000 }), 'jwt expired'],
      ['/v1/token', await provider.assertion(client, '/v1/token', { exp: undefined }), /^expiration must be/],
      ['/v1/token', await provider.assertion(client, '/v1/token', { jti: undefined }), /^unique jti/],
      ['/v1/token', await provider.assertion(client, '/v1/token', {}, stranger), 'signature verification failed'],
      ['/v1/token', await provider.assertion(client, '/v1/token'), undefined],
    ];
    for (const [path, client_assertion, why] of cases) {
      const proof = { client_assertion_type: ASSERTION_TYPE, client_assertion };
      const form = { grant_type: 'refresh_token', refresh_token: 'none', token: 'none', ...proof };
      const { error } = await (await provider.send(path, form)).json();
      assert.equal(error, why ? 'invalid_client' : 'invalid_grant');
      const { refusal } = provider.calls.at(-1);
      if (why) assert.match(refusal, new RegExp(why));
    }
  }
});

check('client_secret_post: the secret is in the form and nowhere else', async () => {
  for (const { authorization, secret, assertion } of await live('post')) {
    assert.deepEqual([authorization, secret, assertion], [undefined, CLIENTS.post.secret, undefined]);
  }
});

check('none: a public client shows nothing but its id', async () => {
  for (const { authorization, secret, assertion } of await live('public')) {
    assert.deepEqual([authorization, secret, assertion], [undefined, undefined, undefined]);
  }
});

check('a key that is replaced in its file and at the provider is used without a restart', async () => {
  const user = 'rotated@example.com';
  await connect('rsa', user);
  provider.renew('rsa');
  await writeCredential('rsa', 'pkcs1');
  const earlier = calls('rsa').length;
  await verify((await vend('rsa', user, 'ANALYST')).access_token, 'rsa', user, 'ANALYST');
  const refusals = calls('rsa').slice(earlier).map((call) => call.refusal);
  assert.equal(refusals.length, 2);
  assert.ok(refusals[0], 'the old key');
  assert.equal(refusals[1], undefined, 'the new one');
  assert.equal((await grant('refresh', 'rsa', user)).code, 0);
  assert.equal(calls('rsa').length, earlier + 3, 'and the old one never again');
  assertNothingTwice();
});

check('a key that the provider knows before its file is there: refused, and good once it is', async () => {
  const user = 'early@example.com';
  await connect('ec', user);
  provider.renew('ec');
  const problem = await refused(502, 'authorization_server_refused', 'ec', user, 'ANALYST');
  assert.equal(problem.authorization_server_error, 'invalid_client');
  // What is at hand is vended all the same.
  await verify((await vend('ec', user)).access_token, 'ec', user);
  await writeCredential('ec', 'pkcs8');
  const answer = await eventually('the new key is used', 10, 'ec', user, 'ANALYST');
  await verify(answer.access_token, 'ec', user, 'ANALYST');
  assertNothingTwice();
});

check('a replaced key: a revocation is made with the new one, though nothing is refreshed', async () => {
  const user = 'rotated-revoked@example.com';
  await connect('ec', user);
  const token = provider.newestRefreshToken(user);
  provider.renew('ec');
  await writeCredential('ec', 'sec1');
  const revoked = await grant('revoke', 'ec', user);
  assert.equal(revoked.code, 0, revoked.stderr);
  await until('the provider knows', 5, async () => {
    return !(await (await provider.post('/v1/introspect', { token }, 'ec')).json()).active;
  });
});

check('a replaced key: a doubt is resolved with the new one, though nothing else is refreshed', async () => {
  const user = 'rotated-doubted@example.com';
  await connect('rsa', user);
  provider.renew('rsa');
  await writeCredential('rsa', 'pkcs8');
  loseOneRequest();
  const answer = await eventually('the doubt is over', 8, 'rsa', user, 'ANALYST');
  await verify(answer.access_token, 'rsa', user, 'ANALYST');
  assertNothingTwice();
});

for (const service of ['ps256', 'es256', 'eddsa']) {
  const { algorithm, audience } = SERVICES[service];
  check(`tokens signed with ${algorithm} are vended where that is configured, and refused where not`, async () => {
    const user = `signed-${service}@example.com`;
    await connect(service, user);
    for (const role of [undefined, 'ANALYST']) {
      const { access_token } = await vend(service, user, role);
      assert.equal((await verify(access_token, service, user, role)).alg, algorithm);
      const { payload } = await read(access_token, service);
      const shown = await introspect(access_token);
      assert.deepEqual({ ...shown, ...payload }, shown);
      assert.equal(shown.active, true);
    }
    // The other way round too: RS256 is not among what is configured here.
    for (const [other, elsewhere, signed] of [
      [service, audience, 'RS256'],
      ['okta', AUDIENCES.okta, algorithm],
    ]) {
      const somebody = `unsigned-${service}-${other}@example.com`;
      await connect(other, somebody);
      const usual = provider.algorithms[elsewhere];
      provider.algorithms[elsewhere] = signed;
      const problem = await refused(502, 'token_invalid', other, somebody, 'ANALYST');
      assert.match(problem.hint, new RegExp(`"${signed}", which is not among the server's signing_algorithms`));
      provider.algorithms[elsewhere] = usual;
      const answer = await eventually('signed as usual', 10, other, somebody, 'ANALYST');
      await verify(answer.access_token, other, somebody, 'ANALYST');
      assert.equal((await grant('refresh', other, somebody)).code, 0, 'the grant lives');
    }
    assertNothingTwice();
  });
}

check('where all endpoints are named everything works, and metadata are never asked for', async () => {
  await live('hidden');
  for (const path of hidden.discovery) assert.equal(hidden.requests[path], undefined, path);
  assert.ok(hidden.requests['/v1/keys'] > 0);
});

check('an endpoint that is not named among others is not used', async () => {
  const user = 'bare@example.com';
  await connect('bare', user);
  await verify((await vend('bare', user, 'ANALYST')).access_token, 'bare', user, 'ANALYST');
  const told = hidden.requests['/v1/revoke'];
  const revoked = await grant('revoke', 'bare', user);
  assert.equal(revoked.code, 0, revoked.stderr);
  assert.match(revoked.stdout, /left to do:\n.*offers no revocation/);
  assert.equal((await refused(409, 'login_required', 'bare', user)).reason, 'revoked');
  assert.equal(hidden.requests['/v1/revoke'], told);
  for (const path of hidden.discovery) assert.equal(hidden.requests[path], undefined, path);
});

/** A token that speaks for the client itself. */
async function verifyOwn(token, service, scope) {
  const { client } = SERVICES[service];
  const { payload } = await read(token, service);
  assert.deepEqual([payload.sub, payload.cid, payload.scp], [client, client, [scope]]);
  return payload;
}

check('a service without users: its token speaks for the client, and is had once for all', async () => {
  const answers = await Promise.all(Array.from({ length: 20 }, () => vend('reports')));
  assert.equal(new Set(answers.map((answer) => answer.access_token)).size, 1);
  const [{ access_token, expires_in, scope }] = answers;
  const payload = await verifyOwn(access_token, 'reports', 'reports');
  assert.equal(scope, 'reports');
  assert.ok(expires_in > 3500 && expires_in <= 3600, `${expires_in}`);
  assert.ok(answers.every((answer) => !answer.user));
  const made = calls('machine');
  assert.deepEqual(made.map((call) => call.grant), ['client_credentials']);
  const shown = await introspect(access_token);
  assert.deepEqual({ ...shown, ...payload, active: true }, shown);
  // A role is a scope here too; a request that is lost is simply made again.
  loseOneRequest();
  const audits = (await vend('reports', undefined, 'audits')).access_token;
  await verifyOwn(audits, 'reports', 'audits');
  assert.equal(calls('machine').length, 2);
  for (const signal of ['SIGTERM', 'SIGKILL']) {
    await stopBursar(signal);
    await startBursar();
    assert.equal((await vend('reports')).access_token, access_token, signal);
    assert.equal((await vend('reports', undefined, 'audits')).access_token, audits, signal);
  }
  const { code, stdout } = await cli('token', '--service', 'reports');
  assert.deepEqual([code, stdout], [0, access_token]);
  assert.equal(calls('machine').length, 2);
});

check('a user is named where there are users, and only there', async () => {
  for (const [service, user] of [
    ['reports', 'alice@example.com'],
    ['okta', undefined],
  ]) {
    const { parameter } = await refused(400, 'invalid_request', service, user);
    assert.equal(parameter, 'user', service);
  }
  const imported = await importToken('reports', 'alice@example.com', await login('okta', 'alice@example.com'));
  assert.equal(imported.code, 64, imported.stderr);
});

check('a service without users whose client is refused: it is said, and a new secret is read', async () => {
  provider.renew('mistaken');
  const problem = await refused(502, 'authorization_server_refused', 'mistaken');
  assert.equal(problem.authorization_server_error, 'invalid_client');
  assert.match(problem.hint, /client secret/);
  await verifyOwn((await vend('reports')).access_token, 'reports', 'reports');
  await writeCredential('mistaken');
  const { access_token } = await eventually('the new secret is used', 10, 'mistaken');
  await verifyOwn(access_token, 'mistaken', 'reports');
});

check('no token, no secret and no assertion is in the log', assertNothingLogged);
