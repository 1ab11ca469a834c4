// Grants are imported, refreshed, vended, revoked and lost. See README.md.

import assert from 'node:assert/strict';
import { createPublicKey, generateKeyPairSync } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { decodeJwt, decodeProtectedHeader, SignJWT, UnsecuredJWT } from 'jose';

import {
  ask,
  assertNothingLogged,
  assertNothingTwice,
  check,
  cli,
  connect,
  counting,
  curl,
  deferred,
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
import { AUDIENCES, BRIEF } from './provider.mjs';

/** The services as bursar is told of them. */
const SERVICES = {
  snowflake: { client: 'rotating', audience: AUDIENCES.okta, more: 'kind = "snowflake"' },
  plain: { client: 'persistent', audience: AUDIENCES.plain, plain: true },
  opaque: { client: 'rotating', audience: AUDIENCES.opaque, more: 'access_token = "opaque"' },
  brief: { client: 'rotating', audience: AUDIENCES.brief },
};

prepare(SERVICES, async () => {
  const servers = {};
  for (const client of ['rotating', 'persistent']) {
    await writeCredential(client);
    servers[client] = { client, more: `client_secret_file = "${file(`${client}.secret`)}"` };
  }
  return servers;
});

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
  const [refreshes, refreshed] = await counting(() => grant('refresh', 'plain', user), user);
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
  const [refreshes, answers] = await counting(() => Promise.all(all), user);
  assert.equal(refreshes, 1);
  assert.equal(new Set(answers.map((answer) => answer.access_token)).size, 1);
  await verify(answers[0].access_token, 'snowflake', user, 'ANALYST');
});

check("another user's refresh token gives nothing, and is not lost", async () => {
  const [user, other] = ['mia@example.com', 'tom@example.com'];
  const token = await provider.login({ user: other, audience: AUDIENCES.okta });
  const [refreshes, wrong] = await counting(() => importToken('snowflake', user, token), user, other);
  assert.equal(wrong.code, 1);
  assert.match(wrong.stderr, /user_mismatch/);
  assert.match(wrong.stderr, new RegExp(`user: ${other}`));
  assert.equal(refreshes, 1);
  for (const nobody of [user, other]) {
    assert.equal((await refused(409, 'login_required', 'snowflake', nobody)).reason, 'never_connected');
  }
  // The token is used up at the provider; what came for it has been kept.
  const [again, right] = await counting(() => importToken('snowflake', other, token), user, other);
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
    }, user);
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
  // At least: each grant is asked about once more, when it ends, some seconds after it has come.
  assert.ok(provider.requests['/v1/introspect'] >= asked + 1);
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
  const faults = [
    (req) => req.socket.destroy(),
    (req, res) => res.writeHead(503, { 'content-type': 'text/html' }).end('<html>'),
    (req) => req.socket.resetAndDestroy(),
  ];
  const users = ['cut@example.com', 'page@example.com', 'reset@example.com'];
  for (const user of users) await connect('snowflake', user);
  // Each of the first three requests meets one of them.
  provider.faults['/v1/token'] = (req, res, pass) => (faults.pop() ?? pass)(req, res);
  const asked = provider.requests['/v1/introspect'];
  const all = users.map((user) => vend('snowflake', user, 'ANALYST'));
  const [refreshes, answers] = await counting(() => Promise.all(all), ...users);
  delete provider.faults['/v1/token'];
  assert.equal(faults.length, 0);
  assert.equal(refreshes, users.length);
  // And when grants end, for those whose time has come.
  assert.ok(provider.requests['/v1/introspect'] >= asked + users.length);
  for (const [n, user] of users.entries()) {
    await verify(answers[n].access_token, 'snowflake', user, 'ANALYST');
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
    const answer = await eventually('the keys are there', 10, 'snowflake', user, 'ANALYST');
    await verify(answer.access_token, 'snowflake', user, 'ANALYST');
    assert.equal((await importToken('snowflake', importing, token)).code, 0);
    await verify((await vend('snowflake', importing)).access_token, 'snowflake', importing);
  }, user, importing);
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
    const answer = await eventually(`${name} is over`, 10, 'snowflake', user, 'ANALYST');
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
    user,
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
    const [refreshes, problem] = await counting(() => refused(409, 'login_required', 'snowflake', user), user);
    assert.equal(problem.reason, 'revoked');
    assert.equal(refreshes, 0, 'what is known to be dead is not presented');
    await connect('snowflake', user);
    await verify((await vend('snowflake', user)).access_token, 'snowflake', user);
  }
  assert.equal(provider.reused.length, 1);
});

check(
  'a token that is imported twice at once is presented once',
  async () => {
    const user = 'twice@example.com';
    const token = await provider.login({ user, audience: AUDIENCES.okta });
    const imports = [0, 1].map(() => importToken('snowflake', user, token));
    const [refreshes] = await counting(() => Promise.all(imports), user);
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

/** Whether the provider takes a refresh token still, by its own word. */
async function lives(token, client = 'rotating') {
  return (await (await provider.post('/v1/introspect', { token }, client)).json()).active;
}

/** No token of either kind is vended, and none is asked for. */
async function assertRevoked(user, service = 'snowflake') {
  const [refreshes] = await counting(async () => {
    for (const role of [undefined, 'ANALYST']) {
      assert.equal((await refused(409, 'login_required', service, user, role)).reason, 'revoked');
    }
  }, user);
  assert.equal(refreshes, 0);
}

const waitingToBeRevoked = async () => JSON.parse((await cli('status', '--json')).stdout).waiting_to_be_revoked;

for (const service of ['snowflake', 'plain']) {
  check(`a grant that is revoked here is over at the provider, and can be given anew: ${service}`, async () => {
    const { client } = SERVICES[service];
    const user = `over-${service}@example.com`;
    await connect(service, user);
    await vend(service, user, 'ANALYST');
    const token = provider.newestRefreshToken(user);
    assert.equal(await lives(token, client), true);
    const told = provider.requests['/v1/revoke'] ?? 0;
    const revoked = await grant('revoke', service, user);
    assert.deepEqual(revoked, { code: 0, stdout: `${service} of ${user}: revoked\n`, stderr: '' });
    assert.equal(provider.requests['/v1/revoke'], told + 1);
    assert.equal(await lives(token, client), false);
    await assertRevoked(user, service);
    assert.match((await cli('grant', 'list', '--state', 'revoked')).stdout, new RegExp(`${service} +${user}`));
    assert.equal((await grant('revoke', service, user)).code, 0, 'once more');
    assert.equal(provider.requests['/v1/revoke'], told + 1, 'there is nothing left to tell');
    await connect(service, user);
    await verify((await vend(service, user, 'ANALYST')).access_token, service, user, 'ANALYST');
  });
}

check('revoked while the provider can not be told: over here at once, there after SIGKILL', async () => {
  const [down, anew, unheard] = ['down@example.com', 'anew@example.com', 'unheard@example.com'];
  const tokens = [];
  for (const user of [down, anew, unheard]) {
    await connect('snowflake', user);
    await vend('snowflake', user, 'ANALYST');
    tokens.push(provider.newestRefreshToken(user));
  }
  const [refreshes] = await counting(async () => {
    for (const [user, fault] of [
      [down, (req, res) => res.writeHead(503).end()],
      [anew, (req) => req.socket.destroy()],
    ]) {
      provider.faults['/v1/revoke'] = fault;
      const revoked = await grant('revoke', 'snowflake', user);
      assert.equal(revoked.code, 0, revoked.stderr);
      assert.match(revoked.stdout, /: revoked\nleft to do:\n.*tried until done/);
      await assertRevoked(user);
      const again = await curl('admin.sock', `/v1/grants/snowflake/${user}`, '--request', 'DELETE');
      assert.equal(again.status, 202);
      assert.equal(JSON.parse(again.body).left.length, 1);
    }
    // Killed while the provider is being told.
    provider.faults['/v1/revoke'] = () => {};
    const revoking = grant('revoke', 'snowflake', unheard);
    await until('it is over here', 5, async () => (await ask('snowflake', unheard)).status === 409);
    await stopBursar('SIGKILL');
    assert.equal((await revoking).code, 69);
    for (const token of tokens) assert.equal(await lives(token), true);
  }, down, anew, unheard);
  assert.equal(refreshes, 0);
  // Told only of what was revoked, not of what has been given since.
  await startBursar();
  await connect('snowflake', anew);
  const [again] = await counting(async () => {
    await stopBursar('SIGKILL');
    delete provider.faults['/v1/revoke'];
    await startBursar();
    for (const user of [down, unheard]) await assertRevoked(user);
    for (const token of tokens) await until('the provider knows', 10, async () => !(await lives(token)));
    await until('nothing is left', 5, async () => (await waitingToBeRevoked()) === 0);
    for (const user of [down, unheard]) await assertRevoked(user);
    await verify((await vend('snowflake', anew)).access_token, 'snowflake', anew);
  }, down, unheard);
  assert.equal(again, 0);
  assert.equal(provider.refreshes.filter((one) => tokens.includes(one.refresh_token)).length, 0);
  assert.equal((await grant('refresh', 'snowflake', anew)).code, 0);
});

check('a refresh that is under way when its grant is revoked brings nothing back', async () => {
  const user = 'race@example.com';
  await connect('snowflake', user);
  const [reached, released] = [deferred(), deferred()];
  provider.faults['/v1/token'] = (req, res, pass) => {
    delete provider.faults['/v1/token'];
    const end = res.end.bind(res);
    res.end = (...args) => {
      reached.resolve();
      released.promise.then(() => end(...args));
    };
    pass();
  };
  const asked = ask('snowflake', user, 'ANALYST');
  await reached.promise;
  const token = provider.newestRefreshToken(user);
  const revoking = grant('revoke', 'snowflake', user);
  const ended = () => cli('grant', 'list', '--state', 'revoked', '--user', user);
  await until('it is over here', 5, async () => (await ended()).stdout.includes(user));
  const askedSince = ask('snowflake', user);
  assert.equal(await lives(token), true, 'the answer brings a refresh token that nobody has revoked yet');
  released.resolve();
  for (const { status, body } of [await asked, await askedSince]) assert.equal(status, 409, body);
  const revoked = await revoking;
  assert.equal(revoked.code, 0, revoked.stderr);
  await until('the provider knows', 5, async () => !(await lives(token)));
  await until('nothing is left', 5, async () => (await waitingToBeRevoked()) === 0);
  await assertRevoked(user);
});

/** A token as somebody shows it, and what `jose` makes of it for any of the services. */
async function judge(token) {
  const verdicts = Object.keys(SERVICES).map((service) => read(token, service).catch(() => undefined));
  return (await Promise.all(verdicts)).find(Boolean)?.payload;
}

check('a token that somebody shows is believed if jose believes it', async () => {
  const user = 'shown@example.com';
  for (const service of ['snowflake', 'plain', 'opaque']) await connect(service, user);
  const vended = {};
  for (const [service, role] of [['snowflake'], ['snowflake', 'ANALYST'], ['plain', 'ANALYST']]) {
    const { access_token } = await vend(service, user, role);
    const payload = await judge(access_token);
    const scope = payload.scope ?? payload.scp.join(' ');
    const named = { active: true, token_type: 'Bearer', scope, client_id: payload.client_id ?? payload.cid };
    assert.deepEqual(await introspect(access_token), { ...named, ...payload });
    vended[service] = access_token;
  }

  /** What the provider issues to somebody who is not bursar, spoilt by `forge`. */
  const issue = async (audience, forge, subject = user) => {
    const refresh_token = await provider.login({ user: subject, audience, client: 'persistent' });
    provider.forgeries[subject] = forge;
    const form = { grant_type: 'refresh_token', refresh_token, scope: 'openid session:role:PUBLIC' };
    const answer = await provider.post('/v1/token', form, 'persistent');
    delete provider.forgeries[subject];
    return answer.json();
  };
  const claim = (change) => issue(AUDIENCES.okta, ({ payload }) => change(payload));
  const { access_token: genuine, id_token, refresh_token } = await issue(AUDIENCES.okta);
  const { kid } = decodeProtectedHeader(genuine);
  const claims = decodeJwt(genuine);
  const [header, payload, signature] = genuine.split('.');
  const flip = (text) => text.slice(0, 40) + (text[40] === 'A' ? 'B' : 'A') + text.slice(41);
  const encode = (object) => Buffer.from(JSON.stringify(object)).toString('base64url');
  const { privateKey, publicKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
  const sign = (protectedHeader, key = privateKey) =>
    new SignJWT(claims).setProtectedHeader(protectedHeader).sign(key);
  const published = createPublicKey({ key: provider.publicKey(kid), format: 'jwk' });
  const shown = {
    'issued to somebody else': genuine,
    'a flipped signature': `${header}.${payload}.${flip(signature)}`,
    'a shortened signature': `${header}.${payload}.${signature.slice(0, -4)}`,
    "another user's name": `${header}.${encode({ ...claims, sub: 'alice@example.com' })}.${signature}`,
    "another token's signature": `${header}.${payload}.${vended.snowflake.split('.')[2]}`,
    'for another audience': (await issue(AUDIENCES.elsewhere)).access_token,
    "another issuer's": (await claim((all) => (all.iss += '/'))).access_token,
    'by a key that calls itself the same': await sign({ alg: 'RS256', kid }),
    'by a key that nobody knows': await sign({ alg: 'RS256', kid: 'unknown' }),
    'by a key that it brings along': await sign({ alg: 'RS256', jwk: publicKey.export({ format: 'jwk' }) }),
    'by the public key, as a secret': await sign(
      { alg: 'HS256', kid },
      Buffer.from(published.export({ type: 'spki', format: 'pem' })),
    ),
    unsigned: new UnsecuredJWT(claims).encode(),
    'with something critical': await sign({ alg: 'RS256', kid, crit: ['b64'], b64: true }),
    expired: (await claim((all) => (all.exp = all.iat - 1))).access_token,
    'without an end': (await claim((all) => delete all.exp)).access_token,
    'of tomorrow': (await claim((all) => (all.nbf = all.iat + 86_400))).access_token,
    'an ID token': id_token,
    'a refresh token': refresh_token,
    'an opaque one': (await vend('opaque', user)).access_token,
    garbage: 'garbage',
    'garbage in three parts': 'a.b.c',
    'one part too many': `${genuine}.x`,
    'not even ASCII': '\u00e9.\u2028.\u{1F511}',
  };
  const believed = [];
  for (const [name, token] of Object.entries(shown)) {
    const payload = await judge(token);
    const answer = await introspect(token);
    assert.equal(answer.active, Boolean(payload), name);
    if (payload) believed.push(name);
    else assert.deepEqual(answer, { active: false }, name);
  }
  assert.deepEqual(believed, ['issued to somebody else']);

  // Whose tokens this caller may not have, of those it learns nothing.
  const { access_token: foreign } = await issue(AUDIENCES.okta, undefined, 'shown@example.org');
  assert.ok(await judge(foreign));
  assert.deepEqual(await introspect(foreign), { active: false });
  // One service's token is not another one's.
  assert.equal((await introspect(vended.plain, 'service=plain')).active, true);
  assert.deepEqual(await introspect(vended.plain, 'service=snowflake'), { active: false });
  for (const [options, status, error, parameter] of [
    [['--data-urlencode', `token=${genuine}`, '--data', 'service=nosuch'], 404, 'unknown_service'],
    [['--data', 'service=plain'], 400, 'invalid_request', 'token'],
    [['--data', 'token=a&token=b'], 400, 'invalid_request', 'token'],
    [['--json', `{"token":"${genuine}"}`], 400, 'invalid_request'],
  ]) {
    const answer = await curl('bursar.sock', '/v1/introspect', ...options);
    assert.equal(answer.status, status, answer.body);
    const problem = JSON.parse(answer.body);
    assert.deepEqual([problem.error, problem.parameter], [error, parameter]);
  }
});

check('thirty grants are imported from a file, and once more', async () => {
  const users = Array.from({ length: 30 }, (_, n) => `bulk${n}@example.com`);
  users[3] = "o'neil+b\u00fcro/100%?&=#@example.com";
  const [broken, mistaken] = [users[11], users[17]];
  const tokens = [];
  for (const user of users) tokens.push(await login('snowflake', user));
  const line = (user, n) => JSON.stringify({ service: 'snowflake', user, refresh_token: tokens[n] });
  const right = users.map(line);
  const wrong = [...right];
  wrong[11] = right[11].slice(0, -1);
  wrong[17] = line('somebody@example.com', 17);
  wrong.splice(5, 0, '');
  const load = async (lines) => {
    await writeFile(file('grants.jsonl'), lines.join('\n'), { mode: 0o600 });
    return presenting(() => cli('grant', 'import', '--json-lines', file('grants.jsonl')));
  };
  // Other tests' grants may be refreshed meanwhile: only these thirty stand still.
  const ours = ({ user, refresh_token }) => users.includes(user) || tokens.includes(refresh_token);
  const presenting = async (work) => {
    const earlier = provider.refreshes.filter(ours).length;
    const result = await work();
    return [provider.refreshes.filter(ours).length - earlier, result];
  };
  const listed = async () => (await cli('grant', 'list', '--json')).stdout
    .trim().split('\n').map(JSON.parse)
    .filter(({ user }) => users.includes(user));

  const [refreshes, first] = await load(wrong);
  assert.equal(refreshes, 29, 'one for each token that was handed in');
  const failures = [
    { line: 13, service: '', user: '', error: 'invalid_line' },
    { line: 19, service: 'snowflake', user: 'somebody@example.com', error: 'user_mismatch', true_user: mistaken },
  ];
  const assertOutcome = ({ code, stdout, stderr }) => {
    assert.equal(code, 1);
    assert.match(stderr, /^28 imported, 2 refused$/m);
    const told = stdout.trim().split('\n').map(JSON.parse);
    told.sort((one, other) => one.line - other.line);
    assert.equal(told.length, failures.length, stdout);
    failures.forEach((failure, n) => {
      assert.ok(told[n].detail);
      for (const [name, value] of Object.entries(failure)) assert.equal(told[n][name], value, stdout);
    });
    for (const token of tokens) assert.ok(!(stdout + stderr).includes(token), 'no token is repeated');
  };
  assertOutcome(first);

  const before = await listed();
  assert.equal(before.length, 28);
  const [again, second] = await load(wrong);
  assertOutcome(second);
  assert.equal(again, 0, 'nothing is presented again');
  assert.deepEqual(await listed(), before);
  const [vending] = await presenting(async () => {
    for (const [n, user] of users.entries()) {
      if (user === mistaken || user === broken) await refused(409, 'login_required', 'snowflake', user);
      else if (n < 8) await verify((await vend('snowflake', user)).access_token, 'snowflake', user);
    }
    await refused(409, 'login_required', 'snowflake', 'somebody@example.com');
  });
  assert.equal(vending, 0, 'what proved a grant is its first token');

  const [last, third] = await load(right);
  assert.equal(third.code, 0, third.stderr);
  assert.match(third.stderr, /^30 imported, 0 refused$/m);
  assert.equal(third.stdout, '');
  assert.equal(last, 1, 'the line that had been broken');
  for (const user of [broken, mistaken, users[3]]) {
    await verify((await vend('snowflake', user, 'ANALYST')).access_token, 'snowflake', user, 'ANALYST');
  }
  const live = (await cli('grant', 'list', '--state', 'active', '--json')).stdout.trim().split('\n').map(JSON.parse);
  for (const user of users) assert.ok(live.some((one) => one.user === user), user);
});

check('no token and no secret is in the log', assertNothingLogged);
