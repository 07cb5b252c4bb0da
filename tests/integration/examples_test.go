package integration

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/rejoin-io/rejoin/tests/nodetest"
)

// A program is one of the examples, running.
type program struct {
	*exec.Cmd
	t   *testing.T
	url string
	log strings.Builder
}

// startExample starts an example in the folder of the examples, and waits for its page at an
// address. It is ended by SIGTERM after the test.
func startExample(t *testing.T, addr string, environment []string, command ...string) *program {
	t.Helper()
	p := &program{exec.Command(command[0], command[1:]...), t, "http://" + addr, strings.Builder{}}
	p.Dir = "../../examples"
	p.Env = append(os.Environ(), environment...)
	p.Stdout, p.Stderr = &p.log, &p.log
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.stop)
	nodetest.Eventually(t, "the example does not serve its page", func() error {
		response, err := nodetest.HTTP.Get(p.url)
		if err != nil {
			return err
		}
		defer response.Body.Close()
		if response.StatusCode != http.StatusOK {
			return fmt.Errorf("status %d", response.StatusCode)
		}
		return nil
	})
	return p
}

func (p *program) stop() {
	late := time.AfterFunc(patience, func() { _ = p.Process.Kill() })
	defer late.Stop()
	if err := p.Process.Signal(syscall.SIGTERM); err != nil {
		p.t.Error(err)
	}
	_ = p.Wait() // most know nothing of signals
	if p.t.Failed() {
		p.t.Logf("%s: %s", p.Path, &p.log)
	}
}

// built compiles an example.
func built(t *testing.T, name string) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), filepath.Base(name))
	if out, err := exec.Command("go", "build", "-C", "../../examples", "-race", "-o", binary, "./"+name).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return binary
}

// shows waits until an element has a text that contains another.
func (p *tab) shows(id, text string) {
	p.t.Helper()
	p.run(chromedp.Poll(fmt.Sprintf(`document.getElementById(%q).textContent.includes(%q)`, id, text), nil, chromedp.WithPollingInterval(50*time.Millisecond), chromedp.WithPollingTimeout(patience)))
}

// TestExampleChat: two servers of the example are one chat over Redis; a client
// that was cut has missed nothing.
func TestExampleChat(t *testing.T) {
	t.Parallel()
	redis, chat := startRedis(t), built(t, "chat")
	client, err := filepath.Abs("../node_modules/socket.io-client/dist")
	if err != nil {
		t.Fatal(err)
	}
	browser := startBrowser(t)
	enter := func(name string) *tab {
		addr := freeAddress(t)
		server := startExample(t, addr, nil, chat, "-addr", addr, "-client", client, "-redis", redis.URL())
		p := openPage(t, browser, server.url, name)
		p.run(chromedp.SendKeys("#name", name+"\r"))
		p.shows("lines", "In lobby: ")
		return p
	}
	say := func(p *tab, text string) { p.run(chromedp.SendKeys("#text", text+"\r")) }
	ann := enter("Ann")
	defer ann.cancel()
	say(ann, "Is anybody here?")
	ann.shows("lines", "Is anybody here?")
	bob := enter("Bob")
	defer bob.cancel()
	bob.shows("lines", "Is anybody here?") // said before
	ann.shows("lines", "Bob has joined.")
	bob.run(chromedp.Evaluate(`document.getElementById("cut").click()`, nil))
	bob.shows("state", "off")
	say(ann, "You will miss this,")
	ann.shows("lines", "You will miss this,")
	say(ann, "and this.")
	bob.shows("lines", "Back again; nothing is missing.")
	bob.shows("lines", "and this.")
	say(bob, "Here I am.")
	ann.shows("lines", "Here I am.")
	bob.shows("lines", "Here I am.")

	var lines []string
	bob.run(chromedp.Evaluate(`[...document.querySelectorAll("#lines li:not(.note)")].map((li) => li.textContent)`, &lines))
	if got := strings.Join(lines, "|"); got != "AnnIs anybody here?|AnnYou will miss this,|Annand this.|BobHere I am." {
		t.Errorf("Bob has read %q", got)
	}
}

// TestExampleDashboard: a backend in each language feeds the page, and a page that
// was cut off shows every figure.
func TestExampleDashboard(t *testing.T) {
	t.Parallel()
	for name, command := range map[string][]string{
		"Node.js": {"node", "dashboard/backend.mjs"},
		"Python":  {"python3", "dashboard/backend.py"},
		"Go":      {built(t, "dashboard/go")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			addr := freeAddress(t)
			_, port, err := net.SplitHostPort(addr)
			if err != nil {
				t.Fatal(err)
			}
			const key = "the-key-of-a-backend"
			n := startNode(t, authenticated, "REJOIN_API_KEYS="+key, "REJOIN_ORIGINS=http://"+addr)
			backend := startExample(t, addr, []string{
				"JWT_SECRET=" + jwtSecret, "API_KEY=" + key, "PORT=" + port, "NODE_URL=" + n.url(), "API_URL=http://" + n.internal,
			}, command...)
			page := openPage(t, startBrowser(t), backend.url, name)
			defer page.cancel()
			page.shows("state", "live")
			number := func(least int) {
				page.run(chromedp.Poll(fmt.Sprintf(`Number(document.getElementById("n").textContent) >= %d`, least), nil, chromedp.WithPollingInterval(50*time.Millisecond), chromedp.WithPollingTimeout(patience)))
			}
			number(2)
			page.run(chromedp.Evaluate(`document.getElementById("cut").click()`, nil))
			page.shows("state", "away")
			page.shows("story", "and nothing is missing.")
			page.shows("state", "live")
			var points, last int
			page.run(
				chromedp.Evaluate(`document.getElementById("line").points.length`, &points),
				chromedp.Evaluate(`Number(document.getElementById("n").textContent)`, &last),
			)
			if points < 5 || points > last || last-points > 2 {
				t.Errorf("%d points, and the last number is %d", points, last)
			}
			if file := os.Getenv("TEST_SCREENSHOT"); file != "" {
				var picture []byte
				page.run(chromedp.CaptureScreenshot(&picture))
				if err := os.WriteFile(file+"."+strings.ToLower(name)+".png", picture, 0o644); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}
