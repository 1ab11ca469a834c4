// npm's oidc-provider, set up to look like an Okta custom authorization server: issuer with a path, endpoints under
// /v1/, access tokens for one audience with `scp` and `cid`, refresh tokens that rotate. Unlike Okta it has no leeway.

import { createHash, generateKeyPairSync, randomBytes, randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:http';

// All that oidc-provider misses on Node 20.
URL.parse ??= (url, base) => {
  try {
    return new URL(url, base);
  } catch {
    return null;
  }
};
const { default: Provider, errors } = await import('oidc-provider');

const PATH = '/oauth2/auspeer';
const REDIRECT = 'https://client.invalid/callback';
export const ROLES = ['session:role:PUBLIC', 'session:role:ANALYST'];

/** The services that tokens are for, by audience. */
export const AUDIENCES = {
  okta: 'https://peer.snowflakecomputing.com',
  plain: 'https://plain.example.com',
  opaque: 'https://opaque.example.com',
  brief: 'https://brief.example.com',
};
/** Seconds that a token for `AUDIENCES.brief` lives. */
export const BRIEF = 6;

/** Clients by name; the secrets have characters that client_secret_basic must encode. */
export const CLIENTS = { rotating: 'r+/=&%:;tating', persistent: 'persistent-secret' };

/** Keeps `rows`, so that grants live on while the Provider object is replaced. */
function memory(rows) {
  const find = (is) => [...rows.values()].find(is);
  return class {
    constructor(model) {
      this.key = (id) => `${model}:${id}`;
    }

    async upsert(id, payload) {
      rows.set(this.key(id), { ...payload });
    }

    async find(id) {
      const row = rows.get(this.key(id));
      return row && { ...row };
    }

    async findByUid(uid) {
      return find((row) => row.kind === 'Session' && row.uid === uid);
    }

    async consume(id) {
      rows.get(this.key(id)).consumed = Math.floor(Date.now() / 1000);
    }

    async destroy(id) {
      rows.delete(this.key(id));
    }

    async revokeByGrantId(grantId) {
      for (const [key, row] of rows) if (row.grantId === grantId) rows.delete(key);
    }
  };
}

function signingKey() {
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
  return { ...privateKey.export({ format: 'jwk' }), kid: randomUUID(), alg: 'RS256', use: 'sig' };
}

export async function startProvider() {
  const rows = new Map();
  const adapter = memory(rows);
  const cookieKey = randomBytes(16).toString('hex');
  // As at Okta: the ACTIVE key signs, the NEXT one is published ahead.
  const keys = [signingKey(), signingKey()];
  let active = keys[0].kid;
  let inside;

  /** What was asked of the token endpoint for refreshes, in order. */
  const refreshes = [];
  /** Grants that the provider revoked, each by the refresh token that made it do so. */
  const revoked = [];
  /** By user: a function that spoils a token before it is signed. */
  const forgeries = {};
  /** By path below the issuer: a function that answers instead, or calls `pass()`. */
  const faults = {};
  /** Requests by path below the issuer. */
  const requests = {};

  const server = createServer((req, res) => {
    if (!req.url.startsWith(`${PATH}/`)) return res.writeHead(404).end();
    req.originalUrl = req.url;
    req.url = req.url.slice(PATH.length);
    const path = req.url.split('?')[0];
    requests[path] = (requests[path] ?? 0) + 1;
    const pass = () => inside(req, res);
    return faults[path] ? faults[path](req, res, pass) : pass();
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const issuer = `http://127.0.0.1:${server.address().port}${PATH}`;

  function replace() {
    const provider = new Provider(issuer, {
      adapter,
      jwks: { keys },
      cookies: { keys: [cookieKey] },
      clients: Object.entries(CLIENTS).map(([client_id, client_secret]) => ({
        client_id,
        client_secret,
        redirect_uris: [REDIRECT],
        grant_types: ['authorization_code', 'refresh_token'],
        token_endpoint_auth_method: 'client_secret_basic',
      })),
      findAccount: (ctx, sub) => ({ accountId: sub, claims: () => ({ sub }) }),
      scopes: ['openid', 'offline_access', ...ROLES],
      rotateRefreshToken: (ctx) => ctx.oidc.client.clientId === 'rotating',
      ttl: {
        AccessToken: (ctx, token) => token.resourceServer.accessTokenTTL,
        Grant: 3600,
        IdToken: 600,
        Interaction: 600,
        RefreshToken: 3600,
        Session: 3600,
      },
      routes: {
        authorization: '/v1/authorize',
        token: '/v1/token',
        jwks: '/v1/keys',
        introspection: '/v1/introspect',
        revocation: '/v1/revoke',
      },
      features: {
        introspection: { enabled: true, allowedPolicy: (ctx, client, token) => client.clientId === token.clientId },
        revocation: { enabled: true, allowedPolicy: (ctx, client, token) => client.clientId === token.clientId },
        resourceIndicators: {
          enabled: true,
          useGrantedResource: () => true,
          getResourceServerInfo(ctx, audience) {
            if (!Object.values(AUDIENCES).includes(audience)) throw new errors.InvalidTarget();
            return {
              audience,
              scope: ROLES.join(' '),
              accessTokenTTL: audience === AUDIENCES.brief ? BRIEF : 3600,
              accessTokenFormat: audience === AUDIENCES.opaque ? 'opaque' : 'jwt',
              jwt: { sign: { alg: 'RS256', kid: active } },
            };
          },
        },
      },
      formats: {
        customizers: {
          jwt(ctx, token, jwt) {
            const { scope, client_id, ...claims } = jwt.payload;
            if (token.aud !== AUDIENCES.plain) {
              jwt.payload = { ver: 1, ...claims, cid: client_id, uid: '00upeer', scp: scope.split(' ') };
            }
            forgeries[claims.sub]?.(jwt);
          },
        },
      },
    });
    const note = (ctx, error) => {
      const { grant_type, refresh_token } = ctx.oidc?.params ?? {};
      if (grant_type === 'refresh_token') {
        refreshes.push({ refresh_token, client: ctx.oidc.client?.clientId, error: error?.error });
      }
    };
    provider.on('grant.success', (ctx) => note(ctx));
    provider.on('grant.error', note);
    provider.on('grant.revoked', (ctx) => revoked.push(ctx.oidc.params.refresh_token ?? ctx.oidc.params.token));
    provider.on('server_error', (ctx, error) => console.error('oidc-provider:', error));
    inside = provider.callback();
  }
  replace();

  const post = async (path, form, client = 'rotating') => {
    const pair = `${encodeURIComponent(client)}:${encodeURIComponent(CLIENTS[client])}`;
    return fetch(`${issuer}${path}`, {
      method: 'POST',
      headers: { authorization: `Basic ${Buffer.from(pair).toString('base64')}` },
      body: new URLSearchParams(form),
    });
  };

  /** The authorization code flow with PKCE, through the provider's own login and consent pages. */
  async function login({ user, audience, client = 'rotating', scopes = ROLES }) {
    const verifier = randomBytes(32).toString('base64url');
    const jar = new Map();
    const go = async (url, form) => {
      const cookie = [...jar].map(([name, value]) => `${name}=${value}`).join('; ');
      const body = form && new URLSearchParams(form);
      const answer = await fetch(url, { method: form ? 'POST' : 'GET', redirect: 'manual', headers: { cookie }, body });
      for (const [, name, value] of answer.headers.getSetCookie().map((line) => line.match(/^([^=]+)=([^;]*)/))) {
        jar.set(name, value);
      }
      return answer;
    };
    let url = `${issuer}/v1/authorize?${new URLSearchParams({
      client_id: client,
      response_type: 'code',
      redirect_uri: REDIRECT,
      // Without prompt=consent the provider drops offline_access.
      prompt: 'consent',
      scope: ['openid', 'offline_access', ...scopes].join(' '),
      resource: audience,
      code_challenge: createHash('sha256').update(verifier).digest('base64url'),
      code_challenge_method: 'S256',
      state: 'state',
    })}`;
    for (let form; !url.startsWith(REDIRECT); ) {
      const answer = await go(url, form);
      form = undefined;
      if (answer.status === 303) {
        url = new URL(answer.headers.get('location'), url).href;
        continue;
      }
      const page = await answer.text();
      const prompt = page.match(/name="prompt" value="(\w+)"/)?.[1];
      if (answer.status !== 200 || !prompt) throw new Error(`${url} answers ${answer.status}: ${page}`);
      url = page.match(/action="([^"]+)"/)[1];
      form = prompt === 'login' ? { prompt, login: user, password: 'any' } : { prompt };
    }
    const code = new URL(url).searchParams.get('code');
    if (!code) throw new Error(`no code: ${url}`);
    const form = { grant_type: 'authorization_code', code, redirect_uri: REDIRECT, code_verifier: verifier };
    const answer = await (await post('/v1/token', { ...form, resource: audience }, client)).json();
    if (!answer.refresh_token) throw new Error(`no refresh token: ${JSON.stringify(answer)}`);
    return answer.refresh_token;
  }

  return {
    issuer,
    refreshes,
    revoked,
    forgeries,
    faults,
    requests,
    login,
    post,
    newestRefreshToken: (user) =>
      [...rows.values()].find((row) => row.kind === 'RefreshToken' && row.accountId === user && !row.consumed)?.jti,
    activeKey: () => active,
    /** The key that was published ahead signs from now on. */
    useNextKey() {
      active = keys.at(-1).kid;
    },
    /** A key that nobody could know signs from now on; the old ones stay published. */
    useUnannouncedKey() {
      keys.push(signingKey());
      active = keys.at(-1).kid;
      replace();
    },
    async stop() {
      server.close();
      server.closeAllConnections();
    },
  };
}
