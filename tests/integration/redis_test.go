package integration

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"github.com/testcontainers/testcontainers-go"

	"github.com/rejoin-io/rejoin/internal/redistest"
)

// startRedis starts the one Redis of a test: a process, or with REDIS=container
// the container that docker-compose.yml names, or REDIS_IMAGE.
func startRedis(t *testing.T, config ...string) *redistest.Server {
	t.Helper()
	switch form := os.Getenv("REDIS"); form {
	case "":
		return redistest.Start(t, config...)
	case "container":
		return redistest.StartOn(t, func(config string) (redistest.Host, error) { return newContainer(t, config) }, config...)
	default:
		t.Fatalf("REDIS is %q: there are processes, and container", form)
		return nil
	}
}

// engine is the container engine, where one runs. What removes containers behind
// a test that was killed is another container, and would have to be fetched.
var engine = sync.OnceValues(func() (*testcontainers.DockerProvider, error) {
	if err := os.Setenv("TESTCONTAINERS_RYUK_DISABLED", "true"); err != nil {
		return nil, err
	}
	return testcontainers.NewDockerProvider(testcontainers.WithDefaultBridgeNetwork("host"))
})

// A redisContainer is in the network of this machine, so that it keeps its
// address when it starts again and nothing stands between it and the nodes.
type redisContainer struct {
	testcontainers.Container
	engine client.APIClient
}

func newContainer(t *testing.T, config string) (redistest.Host, error) {
	provider, err := engine()
	if err != nil {
		return nil, err
	}
	image := os.Getenv("REDIS_IMAGE")
	if image == "" {
		compose, err := os.ReadFile("../../docker-compose.yml")
		if err != nil {
			return nil, err
		}
		if found := regexp.MustCompile(`image: (redis:\S+)`).FindSubmatch(compose); found != nil {
			image = string(found[1])
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute) // it may have to be fetched
	defer cancel()
	c, err := provider.CreateContainer(ctx, testcontainers.ContainerRequest{
		Image:              image,
		Cmd:                []string{"redis-server", "/redis.conf"},
		Files:              []testcontainers.ContainerFile{{Reader: strings.NewReader(config), ContainerFilePath: "/redis.conf", FileMode: 0o644}},
		HostConfigModifier: func(h *container.HostConfig) { h.NetworkMode = "host" },
	})
	if c != nil {
		t.Cleanup(func() {
			ctx, cancel := soon()
			defer cancel()
			if err := c.Terminate(ctx); err != nil {
				t.Errorf("the container of Redis is left behind: %v", err)
			}
		})
	}
	return &redisContainer{c, provider.Client()}, err
}

func (c *redisContainer) Run() error {
	ctx, cancel := soon()
	defer cancel()
	return c.Start(ctx)
}

func (c *redisContainer) state() (*container.State, error) {
	ctx, cancel := soon()
	defer cancel()
	return c.State(ctx)
}

func (c *redisContainer) Running() bool {
	state, err := c.state()
	return err != nil || state.Running
}

func (c *redisContainer) Pid() int {
	state, err := c.state()
	if err != nil {
		return 0
	}
	return state.Pid
}

func (c *redisContainer) Signal(s syscall.Signal) error {
	ctx, cancel := soon()
	defer cancel()
	_, err := c.engine.ContainerKill(ctx, c.GetContainerID(), client.ContainerKillOptions{Signal: fmt.Sprint(int(s))})
	return err
}

func (c *redisContainer) Kill() error {
	if !c.Running() {
		return nil
	}
	ctx, cancel := soon()
	defer cancel()
	gone := c.engine.ContainerWait(ctx, c.GetContainerID(), client.ContainerWaitOptions{Condition: container.WaitConditionNotRunning})
	if err := c.Signal(syscall.SIGKILL); err != nil && c.Running() {
		return err
	}
	select {
	case <-gone.Result:
		return nil
	case err := <-gone.Error:
		return err
	}
}

func (c *redisContainer) Log() string {
	ctx, cancel := soon()
	defer cancel()
	log, err := c.Logs(ctx)
	if err != nil {
		return err.Error()
	}
	text, err := io.ReadAll(log)
	if err := errors.Join(err, log.Close()); err != nil {
		return err.Error()
	}
	return string(text)
}

// soon bounds one call of the engine, also at a test's end.
func soon() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), patience)
}

// What tests do to Redis works wherever it runs.
func TestRedis(t *testing.T) {
	s := startRedis(t, "appendonly yes", "appendfsync always")
	ctx := t.Context()
	if err := s.Client().Set(ctx, "k", "v", 0).Err(); err != nil {
		t.Fatal(err)
	}
	s.Pause()
	paused, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
	defer cancel()
	if err := s.Client().Ping(paused).Err(); err == nil {
		t.Error("it answers while it stands still")
	}
	s.Resume()
	if got, err := s.Client().Get(ctx, "k").Result(); err != nil || got != "v" {
		t.Errorf("after a pause: %q, %v", got, err)
	}
	before := s.Pid()
	s.Pause() // which does not save it
	s.Kill()
	s.Kill()
	if err := s.Client().Ping(ctx).Err(); err == nil {
		t.Error("it answers after its end")
	}
	s.Restart()
	if got, err := s.Client().Get(ctx, "k").Result(); err != nil || got != "v" {
		t.Errorf("after a restart: %q, %v", got, err)
	}
	if s.Pid() == before {
		t.Error("the restart has changed nothing")
	}
	if s.Log() == "" {
		t.Error("it logs nothing")
	}
}
