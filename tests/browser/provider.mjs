// npm's oidc-provider as users meet it: with pages to sign in and to agree, and a session of its own. Its access tokens
// look like Okta's.

import { generateKeyPairSync, randomBytes, randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { memory } from '../peers/oidc-provider/memory.mjs';

// All that oidc-provider misses on Node 20.
URL.parse ??= (url, base) => {
  try {
    return new URL(url, base);
  } catch {
    return null;
  }
};
const { default: Provider, errors } = await import('oidc-provider');

const PATH = '/realms/browser';
export const AUDIENCE = 'https://browser.snowflakecomputing.com';
export const CLIENT = { id: 'browser', secret: 'browser-secret' };
/** Signs in and is not assigned to the client. */
export const STRANGER = 'stranger@example.com';
/** For whom no refresh token is issued. */
export const UNKEPT = 'unkept@example.com';

/** Starts it; `redirectUris` are the client's. */
export async function startProvider(redirectUris) {
  let inside;
  const rows = new Map();
  const server = createServer((req, res) => {
    if (!req.url.startsWith(`${PATH}/`)) return res.writeHead(404).end();
    // Browsers still reach it.
    if (about.silent && /v1.(token|revoke|introspect)$/.test(req.url)) return req.socket.destroy();
    req.originalUrl = req.url;
    req.url = req.url.slice(PATH.length);
    return inside(req, res);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address();
  const issuer = `http://127.0.0.1:${port}${PATH}`;

  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
  const key = { ...privateKey.export({ format: 'jwk' }), kid: randomUUID(), alg: 'RS256', use: 'sig' };
  const provider = new Provider(issuer, {
    adapter: memory(rows),
    jwks: { keys: [key] },
    cookies: { keys: [randomBytes(16).toString('hex')] },
    clients: [
      {
        client_id: CLIENT.id,
        client_secret: CLIENT.secret,
        grant_types: ['authorization_code', 'refresh_token'],
        redirect_uris: redirectUris,
        response_types: ['code'],
      },
    ],
    scopes: ['openid', 'profile', 'offline_access'],
    claims: { openid: ['sub'], profile: ['preferred_username'] },
    findAccount: (ctx, sub) => ({ accountId: sub, claims: () => ({ sub, preferred_username: sub }) }),
    async loadExistingGrant(ctx) {
      const { session, client, account, result } = ctx.oidc;
      if (account?.accountId === STRANGER) throw new errors.AccessDenied('User is not assigned to the client application.');
      const id = result?.consent?.grantId ?? session.grantIdFor(client.clientId);
      return id && ctx.oidc.provider.Grant.find(id);
    },
    issueRefreshToken: (ctx, client, code) => code.accountId !== UNKEPT && code.scopes.has('offline_access'),
    rotateRefreshToken: true,
    ttl: {
      AccessToken: 3600,
      AuthorizationCode: 60,
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
      introspection: { enabled: true },
      revocation: { enabled: true },
      resourceIndicators: {
        enabled: true,
        useGrantedResource: () => true,
        // As at Okta, where an authorization server has one audience and nobody names it.
        defaultResource: () => AUDIENCE,
        getResourceServerInfo: () => ({
          audience: AUDIENCE,
          scope: 'session:role:PUBLIC session:role:ANALYST',
          accessTokenTTL: 3600,
          accessTokenFormat: 'jwt',
          jwt: { sign: { alg: 'RS256' } },
        }),
      },
    },
    formats: {
      customizers: {
        jwt(ctx, token, jwt) {
          const { scope, client_id, ...claims } = jwt.payload;
          jwt.payload = { ver: 1, ...claims, cid: client_id, scp: scope?.split(' ') ?? ['openid'] };
        },
      },
    },
  });
  provider.on('server_error', (ctx, error) => console.error('oidc-provider:', error));
  inside = provider.callback();

  const about = {
    issuer,
    origin: new URL(issuer).origin,
    /** Whether clients get no answers. */
    silent: false,
    /** As if an administrator had ended all that a user has consented to. */
    end(user) {
      for (const [key, row] of rows) if (row.kind === 'RefreshToken' && row.accountId === user) rows.delete(key);
    },
  };
  return about;
}
