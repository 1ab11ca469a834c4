// npm's oidc-provider, set up to look like an Okta custom authorization server: issuer with a path, endpoints under
// /v1/, access tokens for one audience with `scp` and `cid`, refresh tokens that rotate. Unlike Okta it has no leeway.
// Clients of all kinds are registered, each with its own way to prove who it is.

import { createHash, generateKeyPairSync, randomBytes, randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { SignJWT } from 'jose';
import { memory } from './memory.mjs';

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
/** What a client may be granted for itself. */
const REPORTS = ['reports', 'audits'];

/** The services that tokens are for, by audience. */
export const AUDIENCES = {
  okta: 'https://peer.snowflakecomputing.com',
  plain: 'https://plain.example.com',
  opaque: 'https://opaque.example.com',
  brief: 'https://brief.example.com',
  ps256: 'https://ps256.example.com',
  es256: 'https://es256.example.com',
  eddsa: 'https://eddsa.example.com',
  reports: 'https://reports.example.com',
  /** Of no service. */
  elsewhere: 'https://elsewhere.example.com',
};
/** Seconds that a token for `AUDIENCES.brief` lives. */
export const BRIEF = 6;

/** Clients by name; some secrets have characters that must be encoded, in a header or in a form. */
export const CLIENTS = {
  rotating: { method: 'client_secret_basic', secret: 'r+/=&%:;tating' },
  persistent: { method: 'client_secret_basic', secret: 'persistent-secret' },
  post: { method: 'client_secret_post', secret: 'p+/=&%:;st-secret' },
  public: { method: 'none' },
  rsa: { method: 'private_key_jwt', alg: 'RS256', kid: 'key-of-rsa' },
  ec: { method: 'private_key_jwt', alg: 'ES256' },
  machine: { method: 'client_secret_basic', secret: 'machine-secret', grants: ['client_credentials'] },
  mistaken: { method: 'client_secret_basic', secret: 'mistaken-secret', grants: ['client_credentials'] },
};
export const ASSERTION_TYPE = 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer';

/** A key pair for an algorithm. */
export function generateKey(alg) {
  if (alg === 'ES256') return generateKeyPairSync('ec', { namedCurve: 'P-256' });
  if (alg === 'EdDSA') return generateKeyPairSync('ed25519');
  return generateKeyPairSync('rsa', { modulusLength: 2048 });
}

function signingKey(alg = 'RS256') {
  const { privateKey } = generateKey(alg);
  return { ...privateKey.export({ format: 'jwk' }), kid: randomUUID(), alg, use: 'sig' };
}

export async function startProvider() {
  const rows = new Map();
  const adapter = memory(rows);
  const cookieKey = randomBytes(16).toString('hex');
  // As at Okta: the ACTIVE key signs, the NEXT one is published ahead.
  const keys = [signingKey(), signingKey()];
  let active = keys[0].kid;
  const otherKeys = ['PS256', 'ES256', 'EdDSA'].map(signingKey);
  let inside;

  /** What clients prove who they are with now: `secret`, or `key` and its public half. */
  const credentials = {};
  for (const [client, { secret, alg }] of Object.entries(CLIENTS)) {
    const { privateKey: key, publicKey } = alg ? generateKey(alg) : {};
    credentials[client] = { secret, key, publicKey };
  }
  /** What tokens are signed with, by audience; where nothing is said, RS256. */
  const algorithms = { [AUDIENCES.ps256]: 'PS256', [AUDIENCES.es256]: 'ES256', [AUDIENCES.eddsa]: 'EdDSA' };

  /** What was asked of the token endpoint for refreshes, in order. */
  const refreshes = [];
  /** Refresh tokens that were presented after they had been used up, which ended their grants. */
  const reused = [];
  /** By user: a function that spoils a token before it is signed. */
  const forgeries = {};
  /** By path below the issuer: a function that answers instead, or calls `pass()`. */
  const faults = {};
  /** Requests by path below the issuer, or by the whole path. */
  const requests = {};
  /** Who called the endpoints for clients, with what proof, and why it was refused if it was. */
  const calls = [];

  const server = createServer((req, res) => {
    req.originalUrl = req.url;
    const below = req.url.startsWith(`${PATH}/`);
    if (below) req.url = req.url.slice(PATH.length);
    const path = req.url.split('?')[0];
    requests[path] = (requests[path] ?? 0) + 1;
    const pass = () => (below ? inside(req, res) : res.writeHead(404).end());
    return faults[path] ? faults[path](req, res, pass) : pass();
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const issuer = `http://127.0.0.1:${server.address().port}${PATH}`;

  function replace() {
    const provider = new Provider(issuer, {
      adapter,
      jwks: { keys: [...keys, ...otherKeys] },
      cookies: { keys: [cookieKey] },
      clients: Object.entries(CLIENTS).map(([client_id, { method, alg, kid, grants }]) => {
        const { secret, publicKey } = credentials[client_id];
        return {
          client_id,
          token_endpoint_auth_method: method,
          ...(secret && { client_secret: secret }),
          ...(alg && {
            token_endpoint_auth_signing_alg: alg,
            jwks: { keys: [{ ...publicKey.export({ format: 'jwk' }), kid, alg, use: 'sig' }] },
          }),
          grant_types: grants ?? ['authorization_code', 'refresh_token'],
          redirect_uris: grants ? [] : [REDIRECT],
          response_types: grants ? [] : ['code'],
        };
      }),
      findAccount: (ctx, sub) => ({ accountId: sub, claims: () => ({ sub }) }),
      scopes: ['openid', 'offline_access', ...ROLES, ...REPORTS],
      rotateRefreshToken: (ctx) => ctx.oidc.client.clientId !== 'persistent',
      ttl: {
        AccessToken: (ctx, token) => token.resourceServer.accessTokenTTL,
        ClientCredentials: (ctx, token) => token.resourceServer.accessTokenTTL,
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
        clientCredentials: { enabled: true },
        introspection: { enabled: true, allowedPolicy: (ctx, client, token) => client.clientId === token.clientId },
        revocation: { enabled: true, allowedPolicy: (ctx, client, token) => client.clientId === token.clientId },
        resourceIndicators: {
          enabled: true,
          useGrantedResource: () => true,
          // As at Okta, where an authorization server has one audience and nobody names it.
          defaultResource: (ctx, client, oneOf) =>
            client.grantTypeAllowed('client_credentials') ? AUDIENCES.reports : oneOf,
          getResourceServerInfo(ctx, audience) {
            if (!Object.values(AUDIENCES).includes(audience)) throw new errors.InvalidTarget();
            const alg = algorithms[audience] ?? 'RS256';
            return {
              audience,
              scope: (audience === AUDIENCES.reports ? REPORTS : ROLES).join(' '),
              accessTokenTTL: audience === AUDIENCES.brief ? BRIEF : 3600,
              accessTokenFormat: audience === AUDIENCES.opaque ? 'opaque' : 'jwt',
              jwt: { sign: { alg, kid: otherKeys.find((key) => key.alg === alg)?.kid ?? active } },
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
        const user = ctx.oidc.entities?.RefreshToken?.accountId;
        refreshes.push({ refresh_token, user, client: ctx.oidc.client?.clientId, error: error?.error });
      }
    };
    provider.on('grant.success', (ctx) => note(ctx));
    provider.on('grant.error', note);
    for (const kind of ['grant', 'introspection', 'revocation']) {
      provider.on(`${kind}.error`, (ctx, error) => (ctx.state.refusal = error.error_detail ?? error.message));
    }
    provider.use(async (ctx, next) => {
      await next();
      const { client, params } = ctx.oidc ?? {};
      if (!['/v1/token', '/v1/introspect', '/v1/revoke'].includes(ctx.path)) return;
      calls.push({
        path: ctx.path,
        client: client?.clientId,
        grant: params?.grant_type,
        authorization: ctx.headers.authorization,
        secret: params?.client_secret,
        assertion: params?.client_assertion,
        refusal: ctx.state.refusal,
        byHand: ctx.headers['user-agent'] === 'node',
      });
    });
    provider.on('grant.revoked', ({ oidc: { params } }) => params.refresh_token && reused.push(params.refresh_token));
    provider.on('server_error', (ctx, error) => console.error('oidc-provider:', error));
    inside = provider.callback();
  }
  replace();

  const send = (path, form, headers) =>
    fetch(`${issuer}${path}`, { method: 'POST', headers, body: new URLSearchParams(form) });

  /** What a client signs to prove to an endpoint who it is. */
  function assertion(client, path, claims, { key } = credentials[client]) {
    const { alg, kid } = CLIENTS[client];
    const exp = Math.floor(Date.now() / 1000) + 60;
    const all = { iss: client, sub: client, aud: `${issuer}${path}`, exp, jti: randomUUID(), ...claims };
    return new SignJWT(all).setProtectedHeader({ alg, kid }).sign(key);
  }

  async function post(path, form, client = 'rotating') {
    const { method } = CLIENTS[client];
    const { secret } = credentials[client];
    if (method === 'client_secret_basic') {
      const pair = `${encodeURIComponent(client)}:${encodeURIComponent(secret)}`;
      return send(path, form, { authorization: `Basic ${Buffer.from(pair).toString('base64')}` });
    }
    const proof = { client_id: client, ...(secret && { client_secret: secret }) };
    if (method === 'private_key_jwt') {
      proof.client_assertion_type = ASSERTION_TYPE;
      proof.client_assertion = await assertion(client, path);
    }
    return send(path, { ...form, ...proof });
  }

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
    reused,
    forgeries,
    faults,
    requests,
    calls,
    credentials,
    algorithms,
    /** Both places where metadata may be looked for. */
    discovery: ['/.well-known/openid-configuration', `/.well-known/oauth-authorization-server${PATH}`],
    login,
    assertion,
    send,
    post,
    newestRefreshToken: (user) =>
      [...rows.values()].find((row) => row.kind === 'RefreshToken' && row.accountId === user && !row.consumed)?.jti,
    activeKey: () => active,
    publicKey: (kid) => {
      const { kty, n, e } = keys.find((key) => key.kid === kid);
      return { kty, n, e };
    },
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
    /** A client has another secret or key from now on. */
    renew(client) {
      const { alg, secret } = CLIENTS[client];
      const { privateKey: key, publicKey } = alg ? generateKey(alg) : {};
      credentials[client] = { secret: secret && `${secret}-${randomUUID()}`, key, publicKey };
      replace();
    },
    async stop() {
      server.close();
      server.closeAllConnections();
    },
  };
}
