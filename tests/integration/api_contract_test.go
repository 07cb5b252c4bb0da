package integration

import (
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/pb33f/libopenapi"
	validator "github.com/pb33f/libopenapi-validator"

	"github.com/rejoin-io/rejoin/internal/api"
)

// TestAPIContract: the file that the node serves is a good one, and has the routes of
// the implementation, all of them and no others.
func TestAPIContract(t *testing.T) {
	t.Parallel()
	n := startNode(t)
	response, err := internalHTTP.Get("http://" + n.internal + "/api/v1/openapi.yaml") // without a key
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		t.Fatalf("%s, %v", response.Status, err)
	}
	document, err := libopenapi.NewDocument(text)
	if err != nil {
		t.Fatal(err)
	}
	v, errs := validator.NewValidator(document)
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	if ok, errs := v.ValidateDocument(); !ok {
		t.Errorf("%v", errs)
	}
	model, err := document.BuildV3Model()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for path, item := range model.Model.Paths.PathItems.FromOldest() {
		for method := range item.GetOperations().FromOldest() {
			got = append(got, strings.ToUpper(method)+" /api/v1"+path)
		}
	}
	if slices.Sort(got); !slices.Equal(got, api.Routes()) {
		t.Errorf("the file has\n%q, the implementation\n%q", got, api.Routes())
	}
}

// TestAPIPorts: the API and the profiles are at the internal port, for callers with a
// key, and not at the public one. No key is printed.
func TestAPIPorts(t *testing.T) {
	t.Parallel()
	open, closed := startNode(t, withAPI, "REJOIN_LOG_LEVEL=debug"), startNode(t)
	get := func(url, key string) int {
		t.Helper()
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("X-API-Key", key)
		response, err := internalHTTP.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		return response.StatusCode
	}
	for _, path := range []string{"/api/v1/rooms", "/debug/pprof/", "/debug/pprof/heap", "/debug/pprof/cmdline", "/debug/pprof/profile?seconds=1"} {
		for _, tt := range []struct {
			addr, key string
			status    int
		}{
			{open.internal, apiKey, 200}, {open.internal, "", 401}, {open.internal, "a guess", 401},
			{closed.internal, apiKey, 403}, {open.addr, apiKey, 404},
		} {
			if got := get("http://"+tt.addr+path, tt.key); got != tt.status {
				t.Errorf("%s with %q: %d, want %d", path, tt.key, got, tt.status)
			}
		}
	}
	for status, want := range map[string]float64{"200": 1, "401": 2} {
		if got := sum(open.metrics(), "rejoin_api_requests_total", `route="rooms"`, `status="`+status+`"`); got != want {
			t.Errorf("%v requests are counted as %s, want %v", got, status, want)
		}
	}
	if got := sum(open.metrics(), "rejoin_api_request_seconds_count", `route="rooms"`); got != 3 {
		t.Errorf("%v requests are timed", got)
	}
	for _, secret := range []string{apiKey, "a guess"} {
		if open.log.Contains(secret) {
			t.Errorf("the log shows %q", secret)
		}
	}
	open.eventually("logging refused keys", func() error {
		if !open.log.Contains("an API call failed") {
			return errors.New("it is silent")
		}
		return nil
	})
}
