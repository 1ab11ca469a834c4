// What users do on the page, and what can go wrong for them, wherever they sign in. A world has
//
//   name, home             of its pictures; the page's origin
//   label, service         how the page calls its authorization server; a service with the roles PUBLIC and ANALYST
//   bursar                 the daemon's own commands
//   signIn(page, user), cancel(page), forget(context)    at the authorization server
//   kin                    whether another world's pages are just the same
//   stranger               who may sign in there and is not assigned
//   withoutRefreshToken(page, user), unreachable(is), ended(user)

import { userInfo } from 'node:os';
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:http';

import { check, inspect, inspectCookies, tabTo, until, visitor } from './rig.mjs';

const HEADING = 'Your connections';

/** What the page says is the matter, as a person would look for it. */
export const heading = (page) => page.getByRole('heading', { level: 1 }).innerText();

/** A service in the list. */
export const card = (page, service) =>
  page.getByRole('listitem').filter({ has: page.getByRole('heading', { level: 2, name: service, exact: true }) });

/** What the list says of a service, term by term. */
export async function facts(page, service) {
  const terms = await card(page, service).getByRole('term').allInnerTexts();
  const definitions = await card(page, service).getByRole('definition').allInnerTexts();
  return Object.fromEntries(terms.map((term, at) => [term, definitions[at]]));
}

export const press = (page, name) => page.getByRole('button', { name, exact: true }).click();
export const follow = (page, name) => page.getByRole('link', { name, exact: true }).click();

async function begin({ home }) {
  const guest = await visitor(home);
  await guest.page.goto(home);
  assert.equal(await heading(guest.page), HEADING);
  return guest;
}

async function signedIn(world, user) {
  const guest = await begin(world);
  await press(guest.page, `Sign in at ${world.label}`);
  await world.signIn(guest.page, user);
  await guest.page.getByText(`Signed in as ${user}`).waitFor();
  return guest;
}

/** Signs in at the authorization server, is back and connected. */
async function connect(world, { page }, user, button = 'Authenticate') {
  await press(page, `${button} ${world.service}`);
  await world.signIn(page, user);
  assert.equal(await heading(page), 'Connected');
}

export function flows(world) {
  // Worlds are made when their suite begins.
  const { name } = world;
  // A sign goes before the words.
  const state = (page, text) => card(page, world.service).getByText(new RegExp(`^\\S ${text}$`)).waitFor();
  const look = (guest, picture) => inspect(guest, `${name}-${picture}`, world);
  const test = (what, body) => check(`${name}: ${what}`, body);

  test('whoever is not signed in sees the services, and nothing of anybody', async () => {
    const guest = await begin(world);
    await state(guest.page, 'Sign in to see');
    assert.equal(await guest.page.getByRole('link', { name: /Disconnect/ }).count(), 0);
    assert.doesNotMatch(await guest.page.innerText('body'), /@/);
    await look(guest, 'list-unsigned');
    await inspectCookies(guest);
    await guest.leave();
  });

  test('connect with a role, look, reconnect, disconnect, sign out', async () => {
    const user = 'carol@example.com';
    const { service, bursar } = world;
    const guest = await signedIn(world, user);
    const { page } = guest;
    await state(page, 'Not connected');
    await look(guest, 'list-not-connected');

    await card(page, service).getByRole('checkbox', { name: 'ANALYST' }).check();
    await connect(world, guest, user);
    await page.getByText(`Your workflows can use ${service} as ${user} from now on.`).waitFor();
    await look(guest, 'connected');
    await inspectCookies(guest);
    assert.equal((await bursar.grant(service, user)).state, 'active');

    await follow(page, HEADING);
    await state(page, 'Connected');
    assert.equal((await facts(page, service))['Last used'], 'Not yet');
    // A worker uses it, in the role that was chosen.
    const vended = await bursar.token(service, user, 'ANALYST');
    assert.equal(vended.code, 0, vended.stderr);
    assert.equal(JSON.parse(vended.stdout).scope, 'session:role:ANALYST');
    await until('the page tells who has used it', 10, async () => {
      await page.reload();
      return (await facts(page, service))['Last used by'];
    });
    const said = await facts(page, service);
    const moment = /^\d{1,2} \w+ \d{4}, \d\d:\d\d UTC$/;
    assert.match(said['Connected since'], moment);
    assert.match(said['Last used'], moment);
    assert.ok(said['Last used by'].includes(`account ${userInfo().username} `), said['Last used by']);
    assert.deepEqual(said.Roles.split(', ').sort(), ['ANALYST', 'PUBLIC']);
    await look(guest, 'list-connected');

    // What was chosen stays so.
    await connect(world, guest, user, 'Reconnect');
    assert.equal((await bursar.token(service, user, 'ANALYST')).code, 0);
    await follow(page, HEADING);
    assert.deepEqual((await facts(page, service)).Roles.split(', ').sort(), ['ANALYST', 'PUBLIC']);

    await follow(page, `Disconnect ${service}`);
    assert.equal(await heading(page), `Disconnect ${service}?`);
    await look(guest, 'disconnect');
    await follow(page, 'Keep it');
    await state(page, 'Connected');
    assert.equal((await bursar.grant(service, user)).state, 'active');

    await follow(page, `Disconnect ${service}`);
    await press(page, `Disconnect ${service}`);
    assert.equal(await heading(page), 'Disconnected');
    await look(guest, 'disconnected');
    const refused = await bursar.token(service, user);
    assert.equal(refused.code, 75, refused.stderr);
    assert.notEqual((await bursar.grant(service, user)).state, 'active');
    await follow(page, HEADING);
    await state(page, 'Needs you');

    await press(page, 'Sign out');
    await state(page, 'Sign in to see');
    await page.goBack();
    assert.doesNotMatch(await page.innerText('body'), /carol/, 'nobody who comes next to the browser sees it');
    await guest.leave();
  });

  test('a grant that has ended asks for its user, and what was connected stays another user’s', async () => {
    const user = 'dora@example.com';
    const guest = await begin(world);
    const { page } = guest;
    await connect(world, guest, user);
    await world.ended(user);
    await follow(page, HEADING);
    await state(page, 'Needs you');
    await look(guest, 'list-needs-you');
    await connect(world, guest, user, 'Reconnect');
    await guest.leave();

    const other = await signedIn(world, 'erik@example.com');
    await state(other.page, 'Not connected');
    assert.doesNotMatch(await other.page.innerText('body'), /dora/);
    await other.page.goto(`${world.home}/disconnect/${world.service}`);
    assert.equal(await heading(other.page), 'There is nothing to disconnect');
    await look(other, 'nothing-to-disconnect');
    await other.leave();
  });

  test('the keyboard alone connects and disconnects', async () => {
    const user = 'finn@example.com';
    const { service, bursar } = world;
    const guest = await begin(world);
    const { page } = guest;
    await tabTo(page, 'link', 'Skip to the content');
    await page.keyboard.press('Enter');
    await tabTo(page, 'checkbox', 'ANALYST');
    await page.keyboard.press('Space');
    await tabTo(page, 'button', `Authenticate ${service}`);
    await page.keyboard.press('Enter');
    await world.signIn(page, user, 'by keyboard');
    assert.equal(await heading(page), 'Connected');
    assert.equal((await bursar.token(service, user, 'ANALYST')).code, 0);
    await tabTo(page, 'link', HEADING);
    await page.keyboard.press('Enter');
    await state(page, 'Connected');
    await tabTo(page, 'link', `Disconnect ${service}`);
    await page.keyboard.press('Enter');
    await tabTo(page, 'button', `Disconnect ${service}`);
    await page.keyboard.press('Space');
    await page.getByRole('heading', { name: 'Disconnected' }).waitFor();
    await guest.leave();
  });

  const fails = (what, picture, title, body) =>
    test(`${what}: a page says what to do`, async () => {
      const guest = await begin(world);
      await body(guest, guest.page);
      assert.equal(await heading(guest.page), title);
      await look(guest, picture);
      await guest.leave();
    });

  fails('the user says no', 'cancelled', 'You did not connect', async (guest, page) => {
    await press(page, `Authenticate ${world.service}`);
    await world.cancel(page);
    // And once more, from there.
    await press(page, 'Try again');
    await world.cancel(page);
  });

  fails('a policy says no', 'not-allowed', 'Your company does not allow this', async (guest, page) => {
    await press(page, `Authenticate ${world.service}`);
    await world.signIn(page, world.stranger);
  });

  fails('no refresh token comes', 'no-refresh-token', 'The connection would not last', async (guest, page) => {
    await press(page, `Authenticate ${world.service}`);
    const user = await world.withoutRefreshToken(page);
    await page.getByRole('heading', { level: 1 }).waitFor();
    assert.equal(await world.bursar.grant(world.service, user), undefined);
    await page.getByText('offline_access').waitFor();
  });

  fails('somebody else signs in there', 'other-user', 'You are two people at the moment', async (guest, page) => {
    await press(page, `Sign in at ${world.label}`);
    await world.signIn(page, 'gina@example.com');
    await state(page, 'Not connected');
    await world.forget(guest.context);
    await press(page, `Authenticate ${world.service}`);
    await world.signIn(page, 'hugo@example.com');
    await page.getByText('as gina@example.com, but at the sign-in server as hugo@example.com').waitFor();
    for (const user of ['gina@example.com', 'hugo@example.com']) {
      assert.equal(await world.bursar.grant(world.service, user), undefined);
    }
  });

  const UNSOLICITED = 'This sign-in is not one that was begun here';
  fails('an answer comes twice', 'replayed', UNSOLICITED, async (guest, page) => {
    await press(page, `Authenticate ${world.service}`);
    const kept = await guest.context.cookies();
    const answer = page.waitForRequest(/\/callback\//);
    await world.signIn(page, 'ivy@example.com');
    assert.equal(await heading(page), 'Connected');
    // Even with what the browser had to show for it.
    await guest.context.addCookies(kept.filter(({ name }) => /bursar-consent-/.test(name)));
    await page.goto((await answer).url());
    assert.equal((await world.bursar.grant(world.service, 'ivy@example.com')).state, 'active');
  });

  fails('a sign-in took so long that the browser has forgotten it', 'forgotten', UNSOLICITED, async (guest, page) => {
    await press(page, `Authenticate ${world.service}`);
    await guest.context.clearCookies({ name: /bursar-consent-/ });
    await world.signIn(page, 'jack@example.com');
    assert.equal(await world.bursar.grant(world.service, 'jack@example.com'), undefined);
  });

  fails('the authorization server is down', 'server-down', 'The sign-in server does not answer', async (guest, page) => {
    await press(page, `Authenticate ${world.service}`);
    await world.unreachable(true);
    await world.signIn(page, 'kim@example.com');
    await page.getByRole('heading', { level: 1, name: 'does not answer' }).waitFor();
    await world.unreachable(false);
  });
}

/** What has nothing to do with where one signs in. */
export function pages(world) {
  const { name } = world;
  const wrong = (what, picture, status, title, go) =>
    check(`${name}: ${what}`, async () => {
      const guest = await begin(world);
      const answer = await go(guest);
      assert.equal(answer.status(), status);
      assert.equal(await heading(guest.page), title);
      await inspect(guest, `${name}-${picture}`);
      await guest.leave();
    });

  wrong('there is no such page', 'not-found', 404, 'Nothing is here', ({ page }) => page.goto(`${world.home}/<b>no</b>`));

  wrong('a form’s address is no page', 'method', 405, 'That can\'t be done here', ({ page }) =>
    page.goto(`${world.home}/connect/${world.service}`));

  wrong('whoever asks too often is slowed down', 'too-many', 429, 'A little slower, please', async ({ page, context }) => {
    const ask = () => Promise.all(Array.from({ length: 100 }, () => context.request.get(world.home)));
    while ((await ask()).every((answer) => answer.ok()));
    for (;;) {
      const others = ask();
      const answer = await page.goto(world.home);
      await others;
      if (!answer.ok()) return answer;
    }
  });

  check(`${name}: another name for the page’s address is not the page`, async () => {
    const guest = await visitor(world.home.replace('127.0.0.1', 'localhost'));
    const answer = await guest.page.goto(guest.home);
    assert.equal(answer.status(), 421);
    assert.equal(await heading(guest.page), 'This page has another address');
    await inspect(guest, `${name}-wrong-host`);
    await guest.leave();
  });

  check(`${name}: no other site’s form does anything, and none shows the page in a frame`, async () => {
    const guest = await signedIn(world, 'lena@example.com');
    const forms = [`connect/${world.service}`, `disconnect/${world.service}`, 'sign-out'].map(
      (path) =>
        `<form method="post" action="${world.home}/${path}"><input name="csrf" value="x"><button>${path}</button></form>`,
    );
    const body = `<!doctype html><title>Elsewhere</title>${forms.join('')}<iframe src="${world.home}"></iframe>`;
    const elsewhere = createServer((req, res) => res.writeHead(200, { 'content-type': 'text/html' }).end(body));
    elsewhere.listen(0, '127.0.0.1');
    await once(elsewhere, 'listening');
    const there = `http://localhost:${elsewhere.address().port}/`;
    for (const path of [`connect/${world.service}`, `disconnect/${world.service}`, 'sign-out']) {
      await guest.page.goto(there);
      await press(guest.page, path);
      assert.equal(await heading(guest.page), 'That page was out of date');
    }
    await inspect(guest, `${name}-strange-form`);
    await guest.page.goto(there);
    const [, frame] = guest.page.frames();
    assert.equal(frame.url().startsWith(world.home), false, frame.url());
    elsewhere.close();
    elsewhere.closeAllConnections();
    await guest.page.goto(world.home);
    await guest.page.getByText('Signed in as lena@example.com').waitFor();
    await guest.leave({ but: /frame-ancestors/ });
  });
}
