// Clicks through the page in a headless Chromium. `page/test` installs what it takes and runs it.
//
// Bounds on time are generous, since the machine may be busy; the figures are printed.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { createInterface } from "node:readline";
import { chromium } from "playwright-core";

const ARGUMENTS = [
  "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
  "--disable-background-networking", "--disable-component-update", "--disable-sync",
];
const WIDE = { width: 1280, height: 900 };
const NARROW = { width: 360, height: 740 };
const NOKLAND = ["BP", "FA", "DFA", "IFA"];
const PATIENCE = 300_000; // Milliseconds.
const folder = await mkdtemp(path.join(tmpdir(), "page-test-"));
const trouble = []; // Errors in the console, failed requests, requests to others.

const server = spawn("./serve", ["0"], { stdio: ["ignore", "pipe", "ignore"] });
let browser;
try {
  const address = await addressOf(server);
  browser = await chromium.launchPersistentContext(path.join(folder, "profile"), {
    executablePath: "/usr/bin/chromium",
    args: ARGUMENTS,
    viewport: WIDE,
    hasTouch: true,
  });
  const page = browser.pages()[0];
  watch(page, address);
  await loads(page, address);
  await trainsByKeyboard(page);
  await answersToDrawings(page);
  await answersToKeys(page);
  await answersToAFinger(page);
  await showsATestDigit(page);
  await looksRight(page);
  await takesSettings(page);
  await trainsAllRules(page);
  assert.deepEqual(trouble, []);
  console.log(`All is well. Screenshots: ${folder}`);
} finally {
  await browser?.close();
  server.kill();
  await rm(path.join(folder, "profile"), { recursive: true, force: true });
}

/** Where the server listens, as it says itself. */
async function addressOf({ stdout }) {
  for await (const line of createInterface({ input: stdout })) {
    const port = /port (\d+)/.exec(line)?.[1];
    if (port) return `http://127.0.0.1:${port}/`;
  }
  throw new Error("the server does not say where it listens");
}

function watch(page, address) {
  page.on("console", (message) => {
    if (["error", "warning"].includes(message.type())) trouble.push(`console: ${message.text()}`);
  });
  page.on("pageerror", (error) => trouble.push(`error: ${error.message}`));
  page.on("requestfailed", (request) => trouble.push(`failed: ${request.url()}`));
  page.on("response", (response) => {
    if (response.status() >= 400) trouble.push(`${response.status()}: ${response.url()}`);
  });
  page.on("request", (request) => {
    if (!request.url().startsWith(address) && !request.url().startsWith("data:")) {
      trouble.push(`to others: ${request.url()}`);
    }
  });
}

async function loads(page, address) {
  await page.goto(address);
  await isIn(page, "ready");
  const mark = await page.waitForFunction(() => performance.getEntriesByName("ready")[0]?.startTime);
  const ready = await mark.jsonValue();
  console.log(`Loaded and ready after ${ready.toFixed(0)} ms`);
  await page.waitForFunction(() => document.querySelectorAll(".net .route svg").length === 4);
  assert.equal(await page.locator("#angles .curve").count(), 4);
}

function isIn(page, state) {
  return page.waitForSelector(`body[data-state=${state}]`, { timeout: PATIENCE });
}

/** Waits until the named rules have been below an error, and says how long that took. */
async function below(page, error, rules) {
  const start = performance.now();
  await page.waitForFunction(
    ([bound, names]) => names.every((name) => Number(document.querySelector(`tr[data-rule=${name}]`)?.dataset.lowest) < bound),
    [error, rules],
    { timeout: PATIENCE, polling: 100 },
  );
  return (performance.now() - start) / 1000;
}

async function trainsByKeyboard(page) {
  await tabTo(page, "run");
  await page.keyboard.press("Enter");
  await isIn(page, "training");
  const seconds = await below(page, 5, NOKLAND);
  console.log(`The four rules are below 5 % after ${seconds.toFixed(1)} s`);
  assert.ok(seconds < 120);
  await isIn(page, "done");
  console.log(await scores(page));
  const angles = await page.locator("tr[data-rule=BP] td").last().textContent();
  assert.match(angles, /^0° 0°/);
}

async function tabTo(page, id) {
  for (let presses = 0; presses < 60; presses += 1) {
    await page.keyboard.press("Tab");
    if (await page.evaluate((wanted) => document.activeElement?.id === wanted, id)) return;
  }
  assert.fail(`no way to #${id} by Tab`);
}

async function scores(page) {
  const rows = await page.locator("#scores tbody tr").evaluateAll((all) =>
    all.map((row) => [...row.cells].map((cell) => cell.textContent.trim().padEnd(8)).join(" ")));
  return rows.join("\n");
}

async function answersToDrawings(page) {
  await draw(page, [[[0.5, 0.15], [0.5, 0.85]]]);
  await answers(page, 1, "a line drawn with the mouse");
  await page.click("#clear");
  await draw(page, [ellipse(0.5, 0.5, 0.22, 0.33)]);
  await answers(page, 0, "an oval drawn with the mouse");
  await page.click("#clear");
  await draw(page, [[[0.25, 0.15], [0.75, 0.15], [0.42, 0.85]], [[0.32, 0.52], [0.68, 0.52]]]);
  await answers(page, 7, "a seven drawn with the mouse");
}

function ellipse(x, y, width, height) {
  return Array.from({ length: 41 }, (_, step) => {
    const angle = (step / 40) * 2 * Math.PI;
    return [x + width * Math.sin(angle), y - height * Math.cos(angle)];
  });
}

async function draw(page, strokes) {
  await page.locator("#pad").scrollIntoViewIfNeeded();
  const box = await page.locator("#pad").boundingBox();
  for (const [first, ...rest] of strokes) {
    await page.mouse.move(box.x + first[0] * box.width, box.y + first[1] * box.height);
    await page.mouse.down();
    for (const [x, y] of rest) await page.mouse.move(box.x + x * box.width, box.y + y * box.height, { steps: 3 });
    await page.mouse.up();
  }
}

/** At least three of the four nets take what is drawn for the digit. */
async function answers(page, digit, what) {
  await page.waitForFunction(
    (wanted) => document.querySelectorAll(`.net[data-answer="${wanted}"]`).length >= 3,
    digit,
    { timeout: 10_000 },
  ).catch(async () => {
    const found = await page.locator(".net").evaluateAll((nets) => nets.map((net) => net.dataset.answer));
    assert.fail(`${what} is taken for ${found}, not ${digit}`);
  });
  console.log(`${digit}: ${what}`);
}

async function answersToKeys(page) {
  await page.focus("#clear");
  await page.keyboard.press("Shift+Tab");
  assert.equal(await page.evaluate(() => document.activeElement.id), "pad");
  await page.keyboard.press("Delete");
  await page.waitForFunction(() => document.querySelectorAll('.net[data-answer=""]').length === 4);
  await page.keyboard.press("Space");
  for (let steps = 0; steps < 9; steps += 1) await page.keyboard.press("ArrowDown");
  await page.keyboard.press("Space");
  assert.match(await page.textContent("#pad-state"), /^Pen up, 8 from the left, 13 from the top/);
  await answers(page, 1, "a line drawn with the keys");
}

async function answersToAFinger(page) {
  await page.click("#clear");
  await page.locator("#pad").scrollIntoViewIfNeeded();
  const box = await page.locator("#pad").boundingBox();
  const session = await browser.newCDPSession(page);
  const touch = (type, points) => session.send("Input.dispatchTouchEvent", {
    type,
    touchPoints: points.map(([x, y]) => ({ x: box.x + x * box.width, y: box.y + y * box.height })),
  });
  const [first, ...rest] = ellipse(0.5, 0.5, 0.2, 0.35);
  await touch("touchStart", [first]);
  for (const point of rest) await touch("touchMove", [point]);
  await touch("touchEnd", []);
  await answers(page, 0, "an oval drawn with a finger");
}

async function showsATestDigit(page) {
  await page.click("#sample");
  await page.waitForFunction(() => document.getElementById("pad-state").textContent.startsWith("A test digit"));
  const label = Number(/(\d)\.$/.exec(await page.textContent("#pad-state"))[1]);
  await answers(page, label, "the first test digit");
}

async function looksRight(page) {
  for (const [size, viewport] of Object.entries({ wide: WIDE, narrow: NARROW })) {
    await page.setViewportSize(viewport);
    for (const colorScheme of ["light", "dark"]) {
      await page.emulateMedia({ colorScheme });
      const beyond = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
      assert.ok(beyond <= 0, `${size}: ${beyond} pixels too wide`);
      await page.waitForTimeout(200);
      await page.screenshot({ path: path.join(folder, `${size}-${colorScheme}.png`), fullPage: true });
    }
  }
  await page.emulateMedia({ colorScheme: "light" });
  await page.setViewportSize(WIDE);
}

async function takesSettings(page) {
  await page.fill("[name=width]", "0");
  await page.press("[name=width]", "Tab");
  await page.waitForSelector("#problem:not([hidden])");
  await page.fill("[name=width]", "24");
  await page.fill("[name=depth]", "3");
  await page.selectOption("[name=activation]", "relu");
  await page.selectOption("[name=optimizer]", "adam");
  assert.equal(await page.inputValue("[name=rate]"), "0.002");
  await page.selectOption("[name=feedback]", "lillicrap");
  await page.waitForFunction(() => /^.+° .+° .+°$/.test(document.querySelector("tr[data-rule=FA]").cells[4].textContent));
  assert.ok(await page.isHidden("#problem"));
  await page.click("#run");
  await page.waitForFunction(() => Number(document.querySelector("tr[data-rule=DFA]").cells[1].textContent) >= 2);
  await page.click("#run");
  await isIn(page, "paused");
  await page.click("#reset");
  await page.waitForFunction(() => document.querySelector("tr[data-rule=DFA]").cells[1].textContent === "0");
  await isIn(page, "ready");
}

async function trainsAllRules(page) {
  await page.reload();
  await isIn(page, "ready");
  await page.click("#more summary");
  for (const rule of await page.locator("[name=rule]").all()) await rule.check();
  const rules = await page.locator("[name=rule]").evaluateAll((all) => all.map(({ value }) => value));
  await page.waitForFunction((count) => document.querySelectorAll("#scores tbody tr").length === count, rules.length);
  await page.fill("[name=epochs]", "60");
  await page.click("#run");
  const seconds = await below(page, 10, rules).finally(async () => console.log(await scores(page)));
  console.log(`All ${rules.length} rules are below 10 % after ${seconds.toFixed(1)} s`);
  await page.screenshot({ path: path.join(folder, "all-rules.png"), fullPage: true });
}
