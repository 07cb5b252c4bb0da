package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
)

// layoutProblems returns what is wrong with the page as it is shown: parts that are wider than the
// window, a cropped nickname, and on a phone targets that are smaller than a finger.
const layoutProblems = `(() => {
	const problems = [], seen = (e) => e.checkVisibility({ checkOpacity: true }) && e.getBoundingClientRect().width > 1;
	if (document.documentElement.scrollWidth > innerWidth) problems.push("the page is wider than the window");
	for (const e of document.querySelectorAll("header, main, form, nav, button, input, h2, .banner, [data-testid=message]")) {
		const box = e.getBoundingClientRect();
		if (seen(e) && (box.left < -0.5 || box.right > innerWidth + 0.5)) problems.push(e.tagName + " " + (e.id || e.className) + " is outside of the window");
		if (seen(e) && innerWidth < 800 && ["BUTTON", "INPUT"].includes(e.tagName) && (box.height < 44 || box.width < 44)) {
			problems.push(e.tagName + " " + (e.id || e.textContent) + " has " + box.width + " x " + box.height);
		}
	}
	const nick = document.querySelector("[data-testid=nickname]");
	if (seen(nick) && nick.scrollWidth > nick.clientWidth) problems.push("the nickname is cropped");
	return problems;
})()`

// TestDemoLayout: the page fits windows from 320 pixels on, in each view. With TEST_SCREENSHOTS set to
// a folder, pictures are written there.
func TestDemoLayout(t *testing.T) {
	t.Parallel()
	n, closed := startNode(t), startNode(t, authenticated)
	browser := startBrowser(t)
	ada := openDemo(t, browser, n, "Gentle Swallow")
	defer ada.cancel()
	ada.write("Hello, is anybody there? This is a message that needs more than one line on a phone.")
	ada.write("שלום לכולם")
	asked := openPage(t, startBrowser(t), closed.url(), "Bob")
	defer asked.cancel()
	asked.run(chromedp.WaitVisible(`[data-testid="token-form"]`))
	for _, width := range []int64{320, 390, 768, 1280} {
		for _, scheme := range []string{"light", "dark"} {
			shape := []chromedp.Action{
				emulation.SetDeviceMetricsOverride(width, 700, 1, width < 700),
				emulation.SetEmulatedMedia().WithFeatures([]*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}),
			}
			ada.run(shape...)
			asked.run(shape...)
			for _, view := range []string{"side", "chat", "wire"} {
				if width > 800 && view != "chat" {
					continue // all are shown together
				}
				ada.run(chromedp.Evaluate(fmt.Sprintf(`document.body.dataset.view = %q`, view), nil))
				ada.looks(fmt.Sprintf("%s-%d-%s", view, width, scheme))
			}
			asked.looks(fmt.Sprintf("token-%d-%s", width, scheme))
		}
	}
	var behind bool
	asked.run(chromedp.Evaluate(`document.querySelector("main").checkVisibility() || document.querySelector("nav").checkVisibility()`, &behind))
	if behind {
		t.Error("the chat is behind the token form")
	}
	var direction string
	ada.run(chromedp.Evaluate(`getComputedStyle([...document.querySelectorAll("[data-testid=message-text]")].at(-1)).direction`, &direction))
	if direction != "rtl" {
		t.Errorf("Hebrew is written %s, want rtl", direction)
	}
}

// looks checks the layout of a page, and takes a picture of it if that is wanted.
func (p *tab) looks(name string) {
	p.t.Helper()
	var problems []string
	p.run(chromedp.Evaluate(layoutProblems, &problems))
	for _, problem := range problems {
		p.t.Errorf("%s: %s", name, problem)
	}
	if folder := os.Getenv("TEST_SCREENSHOTS"); folder != "" {
		p.picture(filepath.Join(folder, name+".png"))
	}
}

// TestDemoShowsRecovery: on a phone, the page shows the beginning of what was missed, its last message
// is not covered, nothing moves when the banner comes, and the banner fades. Members whose connection
// was lost are shown as away.
func TestDemoShowsRecovery(t *testing.T) {
	t.Parallel()
	n := startNode(t, "REJOIN_PING_INTERVAL=300ms", "REJOIN_PING_TIMEOUT=300ms")
	browser := startBrowser(t)
	ada := openDemo(t, browser, n, "Ada")
	defer ada.cancel()
	bob := openDemo(t, ada.ctx, n, "Bob")
	defer bob.cancel()
	bob.run(emulation.SetDeviceMetricsOverride(320, 568, 1, true))
	position := func(of string) (top float64) {
		t.Helper()
		bob.run(chromedp.Evaluate(fmt.Sprintf(`document.querySelector(%q).getBoundingClientRect().top`, of), &top))
		return top
	}
	for i := range 15 {
		ada.write(fmt.Sprint("before ", i))
	}
	bob.sees("before 14")
	before := position("#compose")
	bob.run(chromedp.Evaluate(`document.querySelector('[data-testid="offline"]').click()`, nil))
	if after := position("#compose"); after != before {
		t.Errorf("the banner moves the page from %v to %v", before, after)
	}
	ada.run(chromedp.Evaluate(`document.dispatchEvent(new Event("visibilitychange"))`, nil))
	for i := range 25 {
		ada.write(fmt.Sprint("missed ", i))
	}
	ada.run(chromedp.Poll(`document.querySelector('[data-testid="member"][data-away]') !== null`, nil, unseen, chromedp.WithPollingTimeout(30*time.Second)))
	if file := os.Getenv("TEST_SCREENSHOT_AWAY"); file != "" {
		ada.run(page.BringToFront())
		ada.picture(file)
	}
	bob.run(page.BringToFront()) // animations of other tabs do not run
	bob.run(chromedp.Evaluate(`document.querySelector('[data-testid="offline"]').click()`, nil))
	bob.sees("missed 24")
	bob.run(chromedp.Poll(`document.querySelector('[data-testid="banner"]').dataset.outcome === "recovered"`, nil, unseen))
	bob.picture(os.Getenv("TEST_SCREENSHOT_RECOVERED"))
	banner, first := position(`[data-testid="banner"]`), position(`[data-testid="message"][data-missed]`)
	if first < banner || first > 400 {
		t.Errorf("the first missed message is at %v, the banner at %v, want it below, and in sight", first, banner)
	}
	var lastCovered bool
	bob.run(chromedp.Evaluate(`(() => {
		const scroll = document.querySelector("#scroll");
		scroll.scrollTop = scroll.scrollHeight;
		const last = [...document.querySelectorAll('[data-testid="message"]')].at(-1).getBoundingClientRect();
		return last.top < document.querySelector('[data-testid="banner"]').getBoundingClientRect().bottom || last.bottom > document.querySelector("#compose").getBoundingClientRect().top;
	})()`, &lastCovered))
	if lastCovered {
		t.Error("the last message is covered")
	}
	bob.run(chromedp.Poll(`getComputedStyle(document.querySelector('[data-testid="banner"]')).opacity === "0"`, nil, unseen, chromedp.WithPollingTimeout(30*time.Second)))
}
