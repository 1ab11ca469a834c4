// The page of a `bursar serve` whose users sign in at npm's oidc-provider, which keeps them signed in.

import assert from 'node:assert/strict';
import { before } from 'node:test';

import { card, facts, flows, follow, heading, press } from './flows.mjs';
import { check, freePort, inspect, secret, startServe, tabTo, visitor } from './rig.mjs';
import { AUDIENCE, CLIENT, STRANGER, UNKEPT, startProvider } from './provider.mjs';

const WORKFLOWS = 'https://workflows.example.com';

let provider;
const world = {
  name: 'oidc',
  service: 'warehouse',
  kin: true,
  stranger: STRANGER,

  async signIn(page, user, byKeyboard) {
    await page.waitForURL(`${provider.origin}/**`);
    if (await page.getByPlaceholder('Enter any login').count()) {
      if (byKeyboard) {
        await tabTo(page, 'textbox', 'Enter any login');
        await page.keyboard.type(user);
        await page.keyboard.press('Tab');
        await page.keyboard.type('any');
        await page.keyboard.press('Enter');
      } else {
        await page.getByPlaceholder('Enter any login').fill(user);
        await page.getByPlaceholder('and password').fill('any');
        await page.getByRole('button', { name: 'Sign-in' }).click();
      }
      await page.waitForLoadState();
    }
    // It asks once for each scope that it has not been asked for.
    const agree = page.getByRole('button', { name: 'Continue' });
    const back = page.waitForURL(`${world.home}/**`);
    await Promise.race([agree.waitFor(), back]);
    if (!page.url().startsWith(world.home)) {
      if (byKeyboard) {
        await tabTo(page, 'button', 'Continue');
        await page.keyboard.press('Enter');
      } else {
        await agree.click();
      }
    }
    await back;
  },
  async cancel(page) {
    await page.getByRole('link', { name: 'Cancel' }).click();
    await page.waitForURL(`${world.home}/**`);
  },
  forget: (context) => context.clearCookies({ name: /^_/ }),
  async withoutRefreshToken(page) {
    await world.signIn(page, UNKEPT);
    return UNKEPT;
  },
  async unreachable(is) {
    provider.silent = is;
  },
  async ended(user) {
    provider.end(user);
    await world.bursar.refresh(world.service, user);
  },
};

before(async () => {
  const port = await freePort();
  world.home = `http://127.0.0.1:${port}`;
  provider = await startProvider([`${world.home}/callback/company`]);
  world.label = new URL(provider.origin).host;
  const connect = { listen: `127.0.0.1:${port}`, public_url: world.home, return_to: [WORKFLOWS] };
  const server = { issuer: provider.issuer, client_id: CLIENT.id, client_secret_file: secret('client', CLIENT.secret) };
  // Where nobody listens.
  const absent = { ...server, issuer: `http://127.0.0.1:${await freePort()}` };
  const service = {
    authorization_server: 'company',
    audience: AUDIENCE,
    scopes: ['session:role:PUBLIC'],
    kind: 'snowflake',
  };
  world.bursar = await startServe(
    'oidc',
    connect,
    { company: server, absent },
    {
      warehouse: { ...service, roles: ['PUBLIC', 'ANALYST'] },
      archive: { ...service, scopes: ['session:role:ANALYST'] },
      moon: { ...service, authorization_server: 'absent', kind: 'generic' },
    },
  );
});

flows(world);

check('oidc: a link names a service and a role, and leads back to where it came from', async () => {
  const guest = await visitor(world.home);
  const { page } = guest;
  const from = `${WORKFLOWS}/runs/7?tab=log#end`;
  const query = new URLSearchParams({ service: 'warehouse', role: 'ANALYST', return_to: from });
  await page.goto(`${world.home}/?${query}`);
  assert.match(await page.getByRole('listitem').first().innerText(), /Your workflow needs this one[^]*warehouse/);
  assert.ok(await card(page, 'warehouse').getByRole('checkbox', { name: 'ANALYST' }).isChecked());
  assert.equal(await page.getByRole('link', { name: 'Back to workflows.example.com' }).getAttribute('href'), from);
  await inspect(guest, 'oidc-list-wanted');
  // Through a failure, too.
  await press(page, 'Authenticate warehouse');
  await world.cancel(page);
  await press(page, 'Try again');
  await world.signIn(page, 'nora@example.com');
  assert.equal(await heading(page), 'Connected');
  const back = `${WORKFLOWS}/runs/7?tab=log&connected=warehouse#end`;
  assert.equal(await page.getByRole('link', { name: 'Back to workflows.example.com' }).getAttribute('href'), back);
  await inspect(guest, 'oidc-connected-back', world);
  assert.equal((await world.bursar.token('warehouse', 'nora@example.com', 'ANALYST')).code, 0);
  await guest.leave();
});

check('oidc: a link leads back nowhere else', async () => {
  const guest = await visitor(world.home);
  const { page } = guest;
  for (const elsewhere of [
    'https://evil.example/',
    'https://workflows.example.com.evil.example/',
    'https://workflows.example.com@evil.example/',
    'http://workflows.example.com/',
    '//evil.example/',
    'javascript:alert(1)',
    '"><b>evil',
  ]) {
    await page.goto(`${world.home}/?${new URLSearchParams({ return_to: elsewhere, service: 'evil"><b>', role: 'evil' })}`);
    assert.equal(await heading(page), 'Your connections');
    assert.equal(await page.getByRole('link', { name: /Back to/ }).count(), 0);
    assert.doesNotMatch(await page.content(), /evil|javascript:/);
  }
  await guest.leave();
});

check('oidc: who is signed in for one service is so for the others of the same server, and for no other', async () => {
  const guest = await visitor(world.home);
  const { page } = guest;
  await page.goto(world.home);
  await press(page, 'Authenticate archive');
  await world.signIn(page, 'olga@example.com');
  await follow(page, 'Your connections');
  for (const [service, state] of [['archive', 'Connected'], ['warehouse', 'Not connected'], ['moon', 'Sign in to see']]) {
    assert.match(await card(page, service).innerText(), new RegExp(`${state}$`, 'm'), service);
  }
  assert.ok((await facts(page, 'archive'))['Connected since']);
  await guest.leave();
});

check('oidc: a server that never answered: a page says what to do', async () => {
  const guest = await visitor(world.home);
  await guest.page.goto(world.home);
  await press(guest.page, 'Authenticate moon');
  assert.equal(await heading(guest.page), 'The sign-in server does not answer');
  await inspect(guest, 'oidc-server-never-up');
  await guest.leave();
});

check('oidc: disconnecting works while the server is down, which is told later', async () => {
  const user = 'paul@example.com';
  const guest = await visitor(world.home);
  const { page } = guest;
  await page.goto(world.home);
  await press(page, 'Authenticate warehouse');
  await world.signIn(page, user);
  await follow(page, 'Your connections');
  await follow(page, 'Disconnect warehouse');
  provider.silent = true;
  await press(page, 'Disconnect warehouse');
  assert.equal(await heading(page), 'Disconnected');
  await page.getByText('could not be told yet').waitFor();
  await inspect(guest, 'oidc-disconnected-untold');
  provider.silent = false;
  assert.equal((await world.bursar.token('warehouse', user)).code, 75);
  await guest.leave();
});
