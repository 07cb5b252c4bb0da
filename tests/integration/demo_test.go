package integration

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// TestDemo chats between two tabs of a browser, cuts one of them for some
// seconds while the other one writes, and checks that it gets the missed
// messages, each once. With TEST_SCREENSHOT set to a path, a picture of the page
// at its end is written there.
func TestDemo(t *testing.T) {
	t.Parallel()
	n := startNode(t)
	browser := startBrowser(t)
	ada := openDemo(t, browser, n, "Ada")
	defer ada.cancel()
	ada.run(chromedp.Evaluate(malformedMessages, nil, awaitPromise)) // which Bob's page loads first
	bob := openDemo(t, ada.ctx, n, "Bob")
	defer bob.cancel()

	ada.write("Hello, is anybody there?")
	bob.sees("Hello, is anybody there?")
	bob.write("I am. My train is about to enter a tunnel.")
	ada.sees("I am. My train is about to enter a tunnel.")

	bob.run(chromedp.Click(`[data-testid="cut-3"]`))
	bob.run(chromedp.WaitVisible(`[data-testid="banner"][data-outcome="cut"]`))
	missed := []string{"Then you will miss this,", "and this,", "and this."}
	for _, text := range missed {
		ada.write(text)
		ada.sees(text)
	}
	bob.run(chromedp.WaitVisible(`[data-testid="banner"][data-outcome="recovered"]`))
	for _, text := range missed {
		bob.sees(text)
	}
	bob.write("I have missed nothing.")
	ada.sees("I have missed nothing.")

	var count string
	bob.run(chromedp.AttributeValue(`[data-testid="banner"]`, "data-missed", &count, nil))
	if count != fmt.Sprint(len(missed)) {
		t.Errorf("the banner counts %q missed", count)
	}
	var texts []string
	bob.run(chromedp.Evaluate(`[...document.querySelectorAll('[data-testid="message"][data-missed] [data-testid="message-text"]')].map(e => e.textContent)`, &texts))
	if fmt.Sprint(texts) != fmt.Sprint(missed) {
		t.Errorf("marked as missed: %q", texts)
	}
	bob.run(chromedp.Evaluate(`[...document.querySelectorAll('[data-testid="message-text"]')].map(e => e.textContent)`, &texts))
	if len(texts) != 6 {
		t.Errorf("the messages shown: %q", texts)
	}
	bob.picture(os.Getenv("TEST_SCREENSHOT"))
}

// malformedMessages sends messages to the lobby that the page itself does not
// send, and resolves when they are stored.
const malformedMessages = `new Promise((resolve) => {
	const socket = io({ forceNew: true });
	const bodies = [[], "2026", {}, null, true, 9e15].map((at) => ({ room: "lobby", id: "x", from: "Eve", text: "malformed", at }));
	bodies.push({ room: "lobby", id: [], from: "Eve", text: "malformed", at: 1 }, [], null);
	const sent = bodies.map((body) => socket.emitWithAck("to", "lobby", "chat", body));
	Promise.all(sent).then(() => resolve(socket.disconnect().connected));
})`

func awaitPromise(p *runtime.EvaluateParams) *runtime.EvaluateParams { return p.WithAwaitPromise(true) }

// TestDemoWithTokens: the page asks for a token if the node requires one, takes it
// from the form or the address, and continues with a fresh one.
func TestDemoWithTokens(t *testing.T) {
	t.Parallel()
	n := startNode(t, authenticated)
	browser := startBrowser(t)
	can := `"can":{"join":["*"],"to":["*"],"history":["*"],"members":["*"],"private":true}`
	ada := openPage(t, browser, n.url(), "Ada")
	defer ada.cancel()
	ada.run(chromedp.WaitVisible(`[data-testid="token-form"]`))
	ada.picture(os.Getenv("TEST_SCREENSHOT_TOKEN"))
	ada.use("rubbish")
	ada.says("not a JSON Web Token")
	ada.use(tokenFor(t, "ada", 10*time.Second, can))
	ada.run(chromedp.WaitVisible(`[data-testid="state"][data-state="connected"]`), chromedp.WaitNotVisible(`[data-testid="token-form"]`))
	bob := openPage(t, ada.ctx, n.url()+"/#token="+tokenFor(t, "bob", longLived, can), "Bob")
	defer bob.cancel()
	bob.run(chromedp.WaitVisible(`[data-testid="state"][data-state="connected"]`))
	var address string
	bob.run(chromedp.Location(&address))
	if strings.Contains(address, "token") {
		t.Errorf("the token stays in the address: %s", address)
	}
	ada.run(chromedp.WaitVisible(`[data-testid="state"][data-state="closed"]`))
	ada.says("expired")
	bob.write("Your token has expired.")
	ada.use(tokenFor(t, "ada", longLived, can))
	ada.sees("Your token has expired.")
	ada.run(chromedp.WaitVisible(`[data-testid="banner"][data-outcome="recovered"]`))
	ada.run(chromedp.Click(`[data-testid="token-renew"]`))
	ada.use(tokenFor(t, "bob", longLived, can))
	ada.says("another user")
	ada.use(tokenFor(t, "ada", longLived, can))
	ada.run(chromedp.WaitNotVisible(`[data-testid="token-form"]`))
	ada.write("And this is a fresh one.")
	ada.sees("And this is a fresh one.")
	bob.sees("And this is a fresh one.")
}

// unseen polls a page that may be behind another one: it is not painted then, and
// polling by frames would wait for that.
var unseen = chromedp.WithPollingInterval(20 * time.Millisecond)

// use gives the page a token, in one piece: hundreds of keys take a busy browser long.
func (p *tab) use(token string) {
	p.t.Helper()
	const input = `[data-testid="token-input"]`
	p.run(chromedp.WaitVisible(input), chromedp.SetValue(input, token), chromedp.SendKeys(input, "\r"))
}

// says waits until the page states why it asks for a token.
func (p *tab) says(text string) {
	p.t.Helper()
	p.run(chromedp.Poll(fmt.Sprintf(`document.querySelector('[data-testid="token-why"]').textContent.includes(%q)`, text), nil, unseen))
}

// picture writes a screenshot to a file, unless that is "".
func (p *tab) picture(file string) {
	p.t.Helper()
	if file == "" {
		return
	}
	var picture []byte
	p.run(chromedp.CaptureScreenshot(&picture))
	if err := os.WriteFile(file, picture, 0o644); err != nil {
		p.t.Fatal(err)
	}
}

// startBrowser returns the context of a browser that ends with the test.
func startBrowser(t *testing.T) context.Context {
	t.Helper()
	path, err := chromium()
	if err != nil {
		t.Fatal(err)
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path),
		chromedp.NoSandbox, // the tests of a container run as root
		chromedp.WindowSize(1280, 800),
	)
	browser, cancel := chromedp.NewExecAllocator(t.Context(), options...)
	t.Cleanup(cancel)
	return browser
}

// A tab shows the demo page to one person.
type tab struct {
	t      *testing.T
	name   string
	ctx    context.Context
	cancel context.CancelFunc
}

func openDemo(t *testing.T, browser context.Context, n *node, nickname string) *tab {
	t.Helper()
	p := openPage(t, browser, n.url(), nickname)
	p.run(chromedp.WaitVisible(`[data-testid="state"][data-state="connected"]`))
	p.run(
		chromedp.Evaluate(`document.querySelector('[data-testid="nickname"]').select()`, nil),
		chromedp.SendKeys(`[data-testid="nickname"]`, nickname+"\r"),
	)
	return p
}

func openPage(t *testing.T, browser context.Context, url, nickname string) *tab {
	t.Helper()
	ctx, cancel := chromedp.NewContext(browser)
	p := &tab{t, nickname, ctx, cancel}
	chromedp.ListenTarget(ctx, func(event any) {
		if thrown, ok := event.(*runtime.EventExceptionThrown); ok {
			t.Errorf("%s's page: %v", nickname, thrown.ExceptionDetails)
		}
	})
	// The first run starts the browser and must not be bounded by a context that
	// ends before the test.
	if err := chromedp.Run(ctx); err != nil {
		t.Fatal(err)
	}
	p.run(chromedp.Navigate(url))
	return p
}

func (p *tab) run(actions ...chromedp.Action) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	for i, action := range actions {
		if err := chromedp.Run(ctx, action); err != nil {
			p.t.Fatalf("%s's tab, action %d: %v", p.name, i, err)
		}
	}
}

func (p *tab) write(text string) {
	p.t.Helper()
	p.run(chromedp.SendKeys(`[data-testid="message-input"]`, text+"\r"))
}

// sees waits for a message with this text, and wants to see it once.
func (p *tab) sees(text string) {
	p.t.Helper()
	const find = `[...document.querySelectorAll('[data-testid="message-text"]')].filter(e => e.textContent === %q).length`
	var count int
	p.run(chromedp.Poll(fmt.Sprintf(find, text)+" > 0", nil, unseen), chromedp.Evaluate(fmt.Sprintf(find, text), &count))
	if count != 1 {
		p.t.Errorf("%s sees %q %d times", p.name, text, count)
	}
}
