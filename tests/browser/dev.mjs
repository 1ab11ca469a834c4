// The page of `bursar dev`, whose users sign in at its own authorization server.

import { before } from 'node:test';

import { flows, pages } from './flows.mjs';
import { startDev, tabTo } from './rig.mjs';

const USERS = ['dora', 'erik', 'finn', 'gina', 'hugo', 'ivy', 'jack', 'kim', 'lena'].map((name) => `${name}@example.com`);

const world = {
  name: 'dev',
  service: 'snowflake',
  stranger: 'mallory@example.com',

  async signIn(page, user, byKeyboard) {
    if (byKeyboard) {
      await page.getByLabel('Username').waitFor();
      await tabTo(page, 'textbox', 'Username');
      await page.keyboard.type(user);
      await page.keyboard.press('Tab');
      await page.keyboard.type('password');
      await page.keyboard.press('Enter');
    } else {
      await page.getByLabel('Username').fill(user);
      await page.getByLabel('Password').fill('password');
      await page.getByRole('button', { name: 'Sign in' }).click();
    }
    await page.waitForURL(`${world.home}/**`);
  },
  async cancel(page) {
    await page.getByRole('button', { name: 'Cancel' }).click();
    await page.waitForURL(`${world.home}/**`);
  },
  /** There are no sessions. */
  async forget() {},
  async withoutRefreshToken(page) {
    await world.bursar.fault({ do: 'no_refresh_token' });
    await world.signIn(page, 'erik@example.com');
    return 'erik@example.com';
  },
  unreachable: (is) => world.bursar.fault(is ? { do: 'status', status: 503, endpoint: 'token', next: 10 } : { do: 'clear' }),
  async ended(user) {
    await world.bursar.fault({ do: 'revoke_user', user });
    await world.bursar.refresh(world.service, user);
  },
};

before(async () => {
  world.bursar = await startDev();
  await world.bursar.settings({ users: USERS });
  const { connect, issuer } = world.bursar;
  world.home = new URL(connect).origin;
  world.label = new URL(issuer).host;
});

flows(world);
pages(world);
