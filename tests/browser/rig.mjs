// What the suites share: the real binary, a real browser, and what must be true of every page.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { after, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import axe from 'axe-core';
import { chromium } from 'playwright-core';

const BINARY = resolve(process.env.BURSAR_BINARY ?? join(import.meta.dirname, '../../target/debug/bursar'));
const SCREENSHOTS = join(import.meta.dirname, 'screenshots');
const LIMIT = { timeout: 60_000 };
/** A phone and a desk. */
const SIZES = [
  { width: 360, height: 740 },
  { width: 1280, height: 800 },
];
/** Root has no sandbox; and nothing is asked of anybody elsewhere. */
const FLAGS = ['sandbox', 'first-run'].map((name) => `--no-${name}`).concat(
  ['gpu', 'quic', 'background-networking', 'component-update', 'sync'].map((name) => `--disable-${name}`),
);
/** What WCAG 2.2 AA asks for, and what axe's makers hold to be good practice. */
const RULES = ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'];

const directory = mkdtempSync(join(tmpdir(), 'bursar-browser-'));
const children = new Set();
let log = '';
export const file = (name) => join(directory, name);

// However a suite ends, nothing that it started or wrote lives on.
process.once('exit', () => {
  children.forEach((child) => child.kill('SIGKILL'));
  rmSync(directory, { recursive: true, force: true });
});
for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => process.exit(1));

function start(args, stdio) {
  const child = spawn(BINARY, args, { stdio });
  children.add(child);
  child.once('exit', () => children.delete(child));
  return child;
}

async function cli(...args) {
  const child = start(args, ['ignore', 'pipe', 'pipe']);
  const said = { stdout: '', stderr: '' };
  for (const name of ['stdout', 'stderr']) child[name].setEncoding('utf8').on('data', (text) => (said[name] += text));
  const [code] = await once(child, 'close');
  return { code, ...said };
}

/** Waits for something that comes about by itself. */
export async function until(what, seconds, look) {
  const deadline = Date.now() + seconds * 1000;
  for (;;) {
    const found = await look();
    if (found) return found;
    assert.ok(Date.now() < deadline, `${what}: not within ${seconds} s\n${log}`);
    await sleep(50);
  }
}

/** A daemon until the suite ends, and what its own commands say of it. */
async function daemon(args, sockets) {
  const child = start(args, ['ignore', 'pipe', 'pipe']);
  for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', (text) => (log += text));
  const { socket, admin_socket } = await until('bursar is up', 30, async () => {
    assert.equal(child.exitCode, null, log);
    const found = sockets();
    return found && (await cli('grant', 'list', '--admin-socket', found.admin_socket)).code === 0 && found;
  });
  return {
    /** How the grant of a user stands, or nothing. */
    async grant(service, user) {
      const args = ['--json', '--service', service, '--user', user, '--admin-socket', admin_socket];
      const { code, stdout, stderr } = await cli('grant', 'list', ...args);
      assert.equal(code, 0, stderr);
      return stdout ? JSON.parse(stdout) : undefined;
    },
    refresh: (service, user) =>
      cli('grant', 'refresh', '--service', service, '--user', user, '--admin-socket', admin_socket),
    token(service, user, role) {
      const roles = role ? ['--role', role] : [];
      return cli('token', '--service', service, '--user', user, ...roles, '--format', 'json', '--socket', socket);
    },
  };
}

/** `bursar dev`, with what its ready file says. */
export async function startDev() {
  const ready = () => {
    try {
      return JSON.parse(readFileSync(file('ready.json')));
    } catch {
      return undefined;
    }
  };
  const args = ['dev', '--dir', file('dev'), '--ready-file', file('ready.json'), '--token-lifetime', '1h'];
  const bursar = await daemon(args, ready);
  const about = ready();
  const control = async (what, body) => {
    const answer = await fetch(`${about.control}/${what}`, { method: 'POST', body: JSON.stringify(body) });
    assert.ok(answer.ok, await answer.text());
  };
  const fault = (order) => control('faults', order);
  return { ...bursar, ...about, fault, settings: (change) => control('settings', change) };
}

/** `bursar serve` with this configuration below what every sidecar needs. */
export async function startServe(name, connect, servers, services) {
  const at = (what) => file(`${name}-${what}`);
  writeFileSync(at('store.key'), (await cli('key', 'generate')).stdout, { mode: 0o600 });
  const table = (header, members) =>
    `\n[${header}]\n${Object.entries(members).map(([key, value]) => `${key} = ${JSON.stringify(value)}\n`).join('')}`;
  const settings = [
    table('socket', { path: at('bursar.sock') }),
    table('admin', { path: at('admin.sock'), metrics: '127.0.0.1:0' }),
    table('store', { url: `sqlite://${at('bursar.db')}`, key_file: at('store.key') }),
    table('log', { format: 'text' }),
    table('[callers]', { uid: process.getuid(), services: ['*'], users: ['*'], run_pass: 'none' }),
    table('connect', connect),
    ...Object.entries(servers).map(([server, members]) => table(`authorization_servers.${server}`, members)),
    ...Object.entries(services).map(([service, members]) => table(`services.${service}`, members)),
  ];
  writeFileSync(at('bursar.toml'), settings.join(''));
  const sockets = { socket: at('bursar.sock'), admin_socket: at('admin.sock') };
  return daemon(['serve', '--config', at('bursar.toml')], () => sockets);
}

/** A file that others can't read. */
export function secret(name, text) {
  writeFileSync(file(name), text, { mode: 0o600 });
  return file(name);
}

/** A port that nobody listens on. */
export async function freePort() {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address();
  server.close();
  await once(server, 'close');
  return port;
}

/** A test that shows what bursar logged if it fails. */
export function check(name, body) {
  test(name, LIMIT, async () => {
    const earlier = log.length;
    try {
      await body();
    } catch (error) {
      console.error(log.slice(earlier));
      throw error;
    }
  });
}

let browser;
let copy;
let visitors = 0;
after(async () => {
  await browser?.close();
  for (const child of children) {
    const ended = once(child, 'exit');
    child.kill('SIGTERM');
    await ended;
  }
  // The head of a JWT, a secret of the development server, a code on its way.
  const leaks = log.split('\n').filter((line) => /eyJ[\w-]{16}|sentinel|[?&](code|state)=|panicked/.test(line));
  assert.deepEqual(leaks, [], 'nothing that proves anything is logged');
});

/**
 * Somebody with a browser and an address of their own, who comes to the page at `home`. No page's scripts are run. What the
 * browser complains of and what headers are missing is noted, and must be nothing when `leave` is called.
 */
export async function visitor(home) {
  browser ??= await chromium.launch({
    executablePath: process.env.BURSAR_CHROMIUM ?? '/usr/bin/chromium',
    args: [...FLAGS, '--host-resolver-rules=MAP *.test 127.0.0.1'],
  });
  visitors += 1;
  const context = await browser.newContext({
    javaScriptEnabled: false,
    ignoreHTTPSErrors: home.startsWith('https:'),
    // The page is told by what is before it who asks; the limits are each visitor's own.
    extraHTTPHeaders: { 'x-forwarded-for': `192.0.2.${visitors}` },
    reducedMotion: 'reduce',
    viewport: SIZES[1],
  });
  context.setDefaultTimeout(15_000);
  // oidc-provider's pages ask for a font from elsewhere.
  await context.route(({ hostname }) => !/^(127\.0\.0\.1|localhost|.*\.test)$/.test(hostname), (route) => route.abort());
  const page = await context.newPage();
  const complaints = [];
  page.on('console', (message) => {
    // A page that says no comes with a status that the browser remarks upon.
    const isStatus = /^Failed to load resource: the server responded with a status of [45]\d\d/.test(message.text());
    const isOurs = message.location().url.startsWith(home);
    if (isOurs && !isStatus && ['error', 'warning'].includes(message.type())) complaints.push(message.text());
  });
  page.on('response', (answer) => {
    if (answer.url().startsWith(home)) complaints.push(...missingHeaders(answer, home));
  });
  return {
    page,
    context,
    home,
    /** `but` is what the browser rightly complains of. */
    async leave({ but } = {}) {
      assert.deepEqual(complaints.filter((one) => !but?.test(one)), []);
      await context.close();
    },
  };
}

function missingHeaders(answer, home) {
  const headers = answer.headers();
  const wanted = {
    'x-content-type-options': /^nosniff$/,
    'referrer-policy': /^(no-referrer|same-origin)$/,
    'cross-origin-opener-policy': /^same-origin$/,
    'permissions-policy': /./,
    'content-security-policy': /^default-src 'none'; style-src 'self'; (?!.*unsafe)(?!.*script).*frame-ancestors 'none'; base-uri 'none'$/,
    ...(home.startsWith('https:') && { 'strict-transport-security': /max-age=\d{7,}/ }),
  };
  const isAsset = answer.ok() && new URL(answer.url()).pathname.startsWith('/assets/');
  wanted['cache-control'] = isAsset ? /immutable/ : /no-store/;
  return Object.entries(wanted)
    .filter(([name, pattern]) => !pattern.test(headers[name] ?? ''))
    .map(([name]) => `${answer.status()} ${answer.url()}: ${name}: ${headers[name]}`);
}

/** Cookies of ours are for this host alone, and for no script. */
export async function inspectCookies({ context, home }) {
  const cookies = (await context.cookies()).filter(({ name }) => name.includes('bursar'));
  assert.ok(cookies.length > 0);
  const [secure, domain] = [home.startsWith('https:'), new URL(home).hostname];
  for (const cookie of cookies) {
    assert.equal(cookie.name.startsWith('__Host-'), secure, cookie.name);
    assert.deepEqual(
      { ...cookie, name: '', value: '', expires: 0 },
      { name: '', value: '', domain, path: '/', expires: 0, httpOnly: true, secure, sameSite: 'Lax' },
    );
  }
}

/**
 * All that must be true of the page that is shown, whatever it says; and pictures of it for a person to look at. Of `kin` of
 * pages that were inspected elsewhere, a phone by night and a desk by day are enough.
 */
export async function inspect({ page }, name, { kin = false } = {}) {
  // Its style, too.
  await page.waitForLoadState('load');
  const about = await page.evaluate(() => ({
    lang: document.documentElement.lang,
    title: document.title,
    headings: document.querySelectorAll('h1').length,
    mains: document.querySelectorAll('main').length,
    scripts: document.scripts.length,
  }));
  assert.deepEqual({ ...about, title: '' }, { lang: 'en', title: '', headings: 1, mains: 1, scripts: 0 });
  assert.match(about.title, /\w/);
  await inspectKeyboard(page);
  const copy = await copyFor(page);
  for (const colorScheme of ['light', 'dark']) {
    for (const size of SIZES) {
      if (kin && (colorScheme === 'dark') !== (size.width === 360)) continue;
      for (const one of [page, copy]) {
        await one.emulateMedia({ colorScheme });
        await one.setViewportSize(size);
      }
      const here = `${name} ${colorScheme} ${size.width}`;
      await inspectLayout(page, here);
      await inspectByAxe(copy, here);
      const path = join(SCREENSHOTS, `${name}-${colorScheme}-${size.width}.png`);
      await page.screenshot({ path, fullPage: true });
    }
  }
  if (kin) return;
  await page.emulateMedia({ colorScheme: 'light', forcedColors: 'active' });
  await page.screenshot({ path: join(SCREENSHOTS, `${name}-forced-1280.png`), fullPage: true });
  await page.emulateMedia({ forcedColors: 'none' });
}

/** axe is a script: it is run on a copy of the page, where scripts are. */
async function copyFor(page) {
  if (!copy) {
    const extraHTTPHeaders = { 'x-forwarded-for': '198.51.100.1' };
    const context = await browser.newContext({ ignoreHTTPSErrors: true, extraHTTPHeaders, reducedMotion: 'reduce' });
    copy = await context.newPage();
  }
  const [url, body] = [page.url(), await page.content()];
  await copy.unrouteAll();
  await copy.route(url, (route) => route.fulfill({ contentType: 'text/html; charset=utf-8', body }));
  await copy.goto(url);
  await copy.evaluate(axe.source);
  return copy;
}

async function inspectByAxe(page, here) {
  const violations = await page.evaluate(async (values) => {
    const found = await globalThis.axe.run({ runOnly: { type: 'tag', values }, resultTypes: ['violations'] });
    const where = ({ html, failureSummary }) => `${html} ${failureSummary}`;
    return found.violations.map(({ id, help, nodes }) => ({ id, help, where: nodes.map(where) }));
  }, RULES);
  assert.deepEqual(violations, [], here);
}

async function inspectLayout(page, here) {
  const found = await page.evaluate(() => {
    const wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
    const controls = [...document.querySelectorAll('button, .button, label:has(input)')];
    const small = controls.filter((one) => one.getBoundingClientRect().height < 43.5).map((one) => one.outerHTML);
    const moving = [...document.querySelectorAll('*')].filter((one) => {
      const { animationName, transitionDuration } = getComputedStyle(one);
      return animationName !== 'none' || transitionDuration.split(',').some((time) => parseFloat(time) > 0.01);
    });
    return { wide, small, moving: moving.length };
  });
  assert.deepEqual(found, { wide: 0, small: [], moving: 0 }, here);
}

/** Tab comes to every control in the order in which they stand, and it shows. */
async function inspectKeyboard(page) {
  const controls = await page.evaluate(() => {
    const all = document.querySelectorAll('a[href], button, input:not([type="hidden"]), select, textarea, summary');
    window.controls = [...all];
    return window.controls.map((one) => one.outerHTML);
  });
  assert.ok(controls.length > 0);
  const reached = [];
  for (const control of controls) {
    await page.keyboard.press('Tab');
    const [at, shows] = await page.evaluate(() => {
      const here = document.activeElement;
      const { outlineStyle, outlineWidth } = getComputedStyle(here);
      const { left, top, right, bottom } = here.getBoundingClientRect();
      const inside = left >= 0 && top >= 0 && right <= innerWidth && bottom <= innerHeight && right > left;
      return [window.controls.indexOf(here), inside && outlineStyle !== 'none' && parseFloat(outlineWidth) >= 2];
    });
    assert.ok(shows, `the focus can't be seen on ${control}`);
    reached.push(at);
  }
  assert.deepEqual(reached, controls.map((_, at) => at));
}

/** Moves the focus, by Tab alone, to what has this role and name. */
export async function tabTo(page, role, name) {
  const wanted = await page.getByRole(role, { name }).elementHandle();
  for (let presses = 0; presses < 60; presses += 1) {
    await page.keyboard.press('Tab');
    if (await wanted.evaluate((one) => one === document.activeElement)) return;
  }
  assert.fail(`Tab does not lead to ${role} ${name}`);
}
