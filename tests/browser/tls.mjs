// The page as browsers meet it in production: over TLS, at a name of its own, so that signing in leads to another site and
// back. The authorization server is that of a `bursar dev` beside it.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { before } from 'node:test';

import { card, follow, heading, press } from './flows.mjs';
import { check, file, freePort, inspect, inspectCookies, secret, startDev, startServe, visitor } from './rig.mjs';

const HOST = 'connections.example.test';
const USER = 'carol@example.com';

let home, dev, bursar;

function certificate(name) {
  const request = ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '1'];
  const subject = ['-subj', `/CN=${name}`, '-addext', `subjectAltName=DNS:${HOST}`];
  const written = ['-keyout', secret('tls.key', ''), '-out', secret('tls.crt', '')];
  execFileSync('openssl', [...request, ...subject, ...written], { stdio: 'ignore' });
  return { certificate_file: file('tls.crt'), private_key_file: file('tls.key') };
}

before(async () => {
  const port = await freePort();
  home = `https://${HOST}:${port}`;
  dev = await startDev();
  await dev.settings({ redirect_uris: [`${home}/callback/company`] });
  const connect = { listen: `127.0.0.1:${port}`, public_url: home, ...certificate('first') };
  const { issuer, client_id, client_secret_file } = dev;
  const service = {
    authorization_server: 'company',
    audience: 'https://dev.snowflakecomputing.com',
    scopes: ['session:role:PUBLIC'],
    kind: 'snowflake',
  };
  bursar = await startServe('tls', connect, { company: { issuer, client_id, client_secret_file } }, { snowflake: service });
});

async function signIn(page) {
  await page.getByLabel('Username').fill(USER);
  await page.getByLabel('Password').fill('password');
  await press(page, 'Sign in');
  await page.waitForURL(`${home}/**`);
}

check('tls: sign in at another site, connect, disconnect; cookies are for this host alone', async () => {
  const guest = await visitor(home);
  const { page } = guest;
  await page.goto(home);
  await press(page, `Sign in at ${new URL(dev.issuer).host}`);
  // In the meantime it has a cookie for what it was sent away with.
  await inspectCookies(guest);
  await signIn(page);
  await page.getByText(`Signed in as ${USER}`).waitFor();
  await press(page, 'Authenticate snowflake');
  await signIn(page);
  assert.equal(await heading(page), 'Connected');
  await inspectCookies(guest);
  await inspect(guest, 'tls-connected');
  assert.equal((await bursar.token('snowflake', USER)).code, 0);
  await follow(page, 'Your connections');
  await card(page, 'snowflake').getByText(/^\S Connected$/).waitFor();
  await follow(page, 'Disconnect snowflake');
  await press(page, 'Disconnect snowflake');
  assert.equal(await heading(page), 'Disconnected');
  assert.equal((await bursar.token('snowflake', USER)).code, 75);
  await guest.leave();
});

check('tls: a renewed certificate is shown without a restart, and a broken one is not', async () => {
  const shown = async (name) => {
    const guest = await visitor(home);
    const answer = await guest.page.goto(home);
    const { subjectName } = await answer.securityDetails();
    await guest.leave();
    return subjectName === name;
  };
  const until = async (name) => {
    // It looks once a second.
    while (!(await shown(name))) await new Promise((resolve) => setTimeout(resolve, 200));
  };
  assert.ok(await shown('first'));
  certificate('second');
  await until('second');
  secret('tls.crt', 'not a certificate');
  await new Promise((resolve) => setTimeout(resolve, 1500));
  assert.ok(await shown('second'));
});
